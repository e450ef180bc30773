// The threads of one threadgroup, each on a stack of its own, in an order that the caller chooses. A thread runs until
// it must wait for others, so a result that depends on the order was never promised.
#pragma once
#include "collectives.h"

extern "C" void sim_entry(void** pointers, const Attributes* attributes);

static void thread_main() {
  sim_entry(state.pointers, &self()->attributes);
  Thread* t = self();
  t->waiting = DONE;
  state.live--;
  try_collective(t->index / SIMD * SIMD, SIMD);  // the others may have waited for this one
  try_collective(t->index / 4 * 4, 4);
  to_scheduler();
  __builtin_unreachable();
}

static u32 random_number(u32* seed) {
  *seed ^= *seed << 13;
  *seed ^= *seed >> 17;
  *seed ^= *seed << 5;
  return *seed;
}

static bool run_until_it_waits(u32 i) {
  if (state.threads[i].waiting != READY) return false;
  state.current = i;
  state.stack_low = (u64)state.stacks + i * STACK;
  sim_switch_stack(&state.scheduler, state.threads[i].stack);
  return true;
}

// Each thread once. Returns whether any could run.
static bool sweep(u32 schedule, u32* seed) {
  static u16 order[MAX_THREADS];
  const u32 n = state.thread_count;
  for (u32 i = 0; i < n; ++i) order[i] = schedule == REVERSE ? n - 1 - i : i;
  for (u32 i = n - 1; schedule == RANDOM && i > 0; --i) {
    u32 j = random_number(seed) % (i + 1);
    u16 t = order[i];
    order[i] = order[j], order[j] = t;
  }
  bool any = false;
  for (u32 i = 0; i < n && !state.aborted; ++i) any |= run_until_it_waits(order[i]);
  return any;
}

// Each SIMD-group as far as it gets, the last one first.
static bool greedy_sweep() {
  bool any = false;
  for (u32 group = (state.thread_count - 1) / SIMD + 1; group--;)
    for (bool more = true; more;) {
      more = false;
      for (u32 i = group * SIMD; i < group * SIMD + SIMD && i < state.thread_count && !state.aborted; ++i)
        more |= run_until_it_waits(i);
      any |= more;
    }
  return any;
}

// Nobody can run, and some have not returned.
static void report_deadlock() {
  Thread *a = 0, *b = 0;
  for (u32 i = 0; i < state.thread_count; ++i) {
    Thread* t = &state.threads[i];
    if (t->waiting == DONE) continue;
    if (!a) a = t;
    else if (!b && !same_site(a, t)) b = t;
  }
  for (u32 i = 0; i < state.thread_count && !b; ++i)
    if (state.threads[i].waiting == DONE) b = &state.threads[i];
  if (a && b) {
    bool simd = a->waiting == IN_COLLECTIVE || b->waiting == IN_COLLECTIVE;
    diverged(simd ? "SIMD-group divergence" : "barrier divergence", a, b);
  }
  state.aborted = 1;
}

static void set_up_thread(u32 i, const u32* position, const u32* size) {
  const Launch* l = state.launch;
  Thread* t = &state.threads[i];
  memset(t, 0, sizeof *t);
  t->index = i, t->lane = i % SIMD, t->simdgroup = i / SIMD;
  for (int m = 0; m < 2; ++m) t->epoch[m] = t->simd_epoch[m] = 1;
  u32 x = i % size[0], y = i / size[0] % size[1], z = i / (size[0] * size[1]);
  u32 count = size[0] * size[1] * size[2], full = l->group[0] * l->group[1] * l->group[2];
  Attributes& a = t->attributes;
  a.thread_position_in_threadgroup = {x, y, z, 0};
  a.threadgroup_position_in_grid = {position[0], position[1], position[2], 0};
  a.thread_position_in_grid = {position[0] * l->group[0] + x, position[1] * l->group[1] + y,
                               position[2] * l->group[2] + z, 0};
  a.threads_per_threadgroup = {size[0], size[1], size[2], 0};
  a.dispatch_threads_per_threadgroup = {l->group[0], l->group[1], l->group[2], 0};
  a.threads_per_grid = a.grid_size = {l->grid[0], l->grid[1], l->grid[2], 0};
  a.threadgroups_per_grid = {state.groups[0], state.groups[1], state.groups[2], 0};
  a.thread_index_in_threadgroup = i;
  a.thread_index_in_simdgroup = i % SIMD;
  a.simdgroup_index_in_threadgroup = i / SIMD;
  a.simdgroups_per_threadgroup = (count + SIMD - 1) / SIMD;
  a.dispatch_simdgroups_per_threadgroup = (full + SIMD - 1) / SIMD;
  a.threads_per_simdgroup = a.thread_execution_width = SIMD;
  a.thread_index_in_quadgroup = i % 4;
  a.quadgroup_index_in_threadgroup = i / 4;
  a.quadgroups_per_threadgroup = (count + 3) / 4;
  a.dispatch_quadgroups_per_threadgroup = (full + 3) / 4;
  // Not all at the same distance from the end, or the tops of all stacks would compete for a few lines of the cache.
  t->stack = new_stack(state.stacks + (i + 1) * STACK - 64 - i % 61 * 320, thread_main);
}

static void run_threadgroup(u64 index) {
  Launch* l = state.launch;
  const u32* n = state.groups;
  u32 position[3] = {(u32)(index % n[0]), (u32)(index / n[0] % n[1]), (u32)(index / ((u64)n[0] * n[1]))};
  u32 size[3];  // smaller at the far edges of the grid
  for (int i = 0; i < 3; ++i) {
    u32 left = l->grid[i] - position[i] * l->group[i];
    size[i] = left < l->group[i] ? left : l->group[i];
  }
  state.group = (u32)index;
  state.thread_count = state.live = size[0] * size[1] * size[2];
  state.waiting_in_barrier = 0;
  l->threads += state.thread_count;
  if (state.threadgroup_size) memset((void*)state.threadgroup_low, 0xff, state.threadgroup_size);  // NaN
  for (u32 i = 0; i < state.thread_count; ++i) set_up_thread(i, position, size);
  u32 seed = (l->seed + 1) * 2654435761u ^ (state.group + 1) * 40503u;
  if (!seed) seed = 1;
  while (state.live && !state.aborted) {
    bool any = l->schedule == GREEDY ? greedy_sweep() : sweep(l->schedule, &seed);
    if (!any && state.live && !state.aborted) report_deadlock();
  }
}
