// One launch of a kernel on the CPU. This file is linked to every compiled kernel.
#include "memory.h"
#include "undefined.h"
#include "schedule.h"

// What lies behind the last threadgroup variable; metal_stdlib has the like before the first.
static const u64 GUARD_BEFORE = 1024, GUARD_AFTER = 4096;
__attribute__((section(SECTION), used, aligned(16))) static char guard_after[GUARD_AFTER];

#define EXPORT extern "C" __attribute__((visibility("default")))

// Bytes that the kernel's threadgroup variables take.
EXPORT u64 sim_threadgroup_bytes() {
  return (u64)(__stop_sim_threadgroup - __start_sim_threadgroup) - GUARD_BEFORE - GUARD_AFTER;
}

static u64 slots_of(const Buffer& b) { return b.size ? (b.size + SLOT - 1) / SLOT : 1; }
static u64 shadow_bytes(const Buffer& b) { return (b.size / b.element + 1) * sizeof(Shadow); }

// Copy the buffers into an address range of their own, far apart, where every access can be told.
static bool set_up_arena(char** reserved, u64* reserved_size) {
  Launch* l = state.launch;
  u64 total = GAP;
  for (u32 i = 0; i < l->buffer_count; ++i) total += slots_of(l->buffers[i]) * SLOT + GAP;
  *reserved_size = total + SLOT;
  *reserved = (char*)reserve(*reserved_size);
  if (!*reserved) return false;
  state.arena = (char*)(((u64)*reserved + SLOT - 1) / SLOT * SLOT);
  state.arena_size = total;
  state.buffer_of_slot = (u16*)calloc(total / SLOT, sizeof(u16));
  memset(state.buffer_of_slot, 0xff, total / SLOT * sizeof(u16));
  u64 offset = GAP;
  for (u32 i = 0; i < l->buffer_count; ++i) {
    const Buffer& b = l->buffers[i];
    state.base[i] = state.arena + offset;
    for (u64 k = 0; k < slots_of(b); ++k) state.buffer_of_slot[offset / SLOT + k] = i;
    if (b.flags & WRITABLE) state.shadow[i] = (Shadow*)reserve(shadow_bytes(b));
    if (!(b.flags & WRITABLE) || (b.flags & INITIALISED)) memcpy(state.base[i], b.data, b.size);
    else memset(state.base[i], 0xff, b.size);
    offset += slots_of(b) * SLOT + GAP;
  }
  return true;
}

static void look_for_unwritten(u32 i) {
  const Buffer& b = state.launch->buffers[i];
  if (state.aborted || (b.flags & (INITIALISED | PARTIAL))) return;
  u64 missing = 0, first = 0, count = b.size / b.element;
  for (u64 k = 0; k < count; ++k)
    if (!(state.shadow[i][k].flags & WRITTEN) && !missing++) first = k;
  if (!missing) return;
  state.thread_count = 0;  // no thread is to blame
  Site site = {0, b.name, 0};
  if (Report* r = report(UNWRITTEN_OUTPUT, 0, &site)) {
    SAY(r, "%lu of %lu elements of the output %s are never written, the first is [%lu]", missing, count, b.name, first);
    r->file = 0;
  }
}

static void run_threadgroups() {
  Launch* l = state.launch;
  u64 all = 1;
  for (int i = 0; i < 3; ++i) {
    state.groups[i] = (l->grid[i] + l->group[i] - 1) / l->group[i];
    all *= state.groups[i];
  }
  u64 first = l->group_count ? l->first_group : 0, count = l->group_count ? l->group_count : all;
  state.inside_runtime = 0;
  for (u64 k = 0; k < count && !state.aborted; ++k)
    run_threadgroup(l->schedule == REVERSE ? first + count - 1 - k : first + k);
  state.inside_runtime = 1;
}

// Returns 0, or -1 if there is not enough memory. Findings are in launch->reports.
EXPORT int sim_run(Launch* l) {
  static Thread* threads;  // kept from one launch to the next, as their pages cost more than a small launch
  static char* stacks;
  if (!threads) threads = (Thread*)calloc(MAX_THREADS, sizeof(Thread));
  if (!stacks) stacks = (char*)reserve(STACK * MAX_THREADS);
  if (!threads || !stacks) return -1;
  memset(&state, 0, sizeof state);
  state.inside_runtime = 1;
  state.launch = l;
  state.threads = threads;
  state.stacks = stacks;
  l->report_count = 0;
  l->accesses = l->switches = l->threads = 0;
  state.threadgroup_low = (u64)__start_sim_threadgroup;
  state.threadgroup_size = (u64)(__stop_sim_threadgroup - __start_sim_threadgroup);
  state.base = (char**)calloc(l->buffer_count + 1, sizeof(char*));
  state.shadow = (Shadow**)calloc(l->buffer_count + 1, sizeof(Shadow*));
  char* reserved = 0;
  u64 reserved_size = 0;
  if (l->checked) {
    state.threadgroup_shadow = (Shadow*)calloc(state.threadgroup_size, sizeof(Shadow));
    state.variable_of_byte = (u16*)calloc(state.threadgroup_size, sizeof(u16));
    if (!set_up_arena(&reserved, &reserved_size)) return -1;
  } else {
    for (u32 i = 0; i < l->buffer_count; ++i) state.base[i] = (char*)l->buffers[i].data;
  }
  state.pointers = (void**)state.base;

  run_threadgroups();

  for (u32 i = 0; l->checked && i < l->buffer_count; ++i) {
    const Buffer& b = l->buffers[i];
    if (!(b.flags & WRITABLE)) continue;
    memcpy(b.data, state.base[i], b.size);
    look_for_unwritten(i);
    munmap(state.shadow[i], shadow_bytes(b));
  }
  l->accesses = state.accesses, l->switches = state.switches;
  if (reserved) munmap(reserved, reserved_size);
  free(state.base);
  free(state.shadow);
  free(state.threadgroup_shadow);
  free(state.variable_of_byte);
  free(state.buffer_of_slot);
  state.launch = 0;
  return 0;
}
