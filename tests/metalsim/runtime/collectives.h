// Barriers and operations of a SIMD-group. A thread that reaches one waits until all that must take part wait in the
// same place; the last one to come does the work for all of them.
#pragma once
#include "report.h"

extern "C" u32 __sim_lane() { return self()->lane; }

static bool same_site(const Thread* a, const Thread* b) {
  return a->site.line == b->site.line && a->site.file == b->site.file && a->site.what == b->site.what;
}

static void diverged(const char* what, Thread* a, Thread* b) {
  Report* r = report(DIVERGENCE, 0, &a->site);
  if (!r) return;
  r->place = place_of(a);
  r->other_place = place_of(b);
  r->other_line = b->site.line;
  SAY(r, "%s: one thread waits in %s, the other %s %s", what, a->site.what,
      b->waiting == DONE ? b->site.what ? "has returned after" : "has returned before any" : "waits in",
      b->site.what ? b->site.what : "barrier");
}

// If all live lanes of a SIMD-group (or of four lanes) wait in the same operation, do it.
static void try_collective(u32 first, u32 scope) {
  u32 end = first + scope < state.thread_count ? first + scope : state.thread_count;
  Thread* leader = 0;
  u32 active = 0;
  void* slots[SIMD] = {};
  for (u32 i = first; i < end; ++i) {
    Thread* t = &state.threads[i];
    if (t->waiting == DONE) continue;
    if (t->waiting != IN_COLLECTIVE || t->request->scope != scope) return;
    if (!leader) leader = t;
    else if (!same_site(leader, t)) return;
    active |= 1u << (i - first);
    slots[i - first] = t->request->slot;
  }
  if (!leader) return;
  Request* q = leader->request;
  if (q->combine) {
    u32 saved = state.current;
    state.inside_runtime++;
    state.current = (u32)(leader - state.threads);
    q->combine(slots, active, scope);
    state.current = saved;
    state.inside_runtime--;
  }
  u32 flags = q->flags;
  for (u32 i = first; i < end; ++i) {
    Thread* t = &state.threads[i];
    if (t->waiting != IN_COLLECTIVE) continue;
    t->waiting = READY;
    if (flags & 1) t->simd_epoch[DEVICE]++;
    if (flags & 2) t->simd_epoch[THREADGROUP]++;
  }
}

// If all threads of the threadgroup wait in the same barrier, let them go on. One that has returned never will.
static void try_barrier() {
  if (state.waiting_in_barrier < state.thread_count) return;
  Thread* leader = &state.threads[0];
  for (u32 i = 1; i < state.thread_count; ++i)
    if (!same_site(leader, &state.threads[i])) {
      diverged("barrier divergence", leader, &state.threads[i]);
      abandon();
    }
  u32 flags = leader->request->flags;
  state.waiting_in_barrier = 0;
  for (u32 i = 0; i < state.thread_count; ++i) {
    Thread* t = &state.threads[i];
    t->waiting = READY;
    if (flags & 1) t->epoch[DEVICE]++;
    if (flags & 2) t->epoch[THREADGROUP]++;
  }
}

static void wait_in(Waiting where, Request* request, const char* what, const char* file, int line) {
  Thread* t = self();
  t->request = request;
  t->site = {what, file, (u32)line};
  t->waiting = where;
  if (where == IN_BARRIER) {
    state.waiting_in_barrier++;
    try_barrier();
  } else {
    try_collective(t->index / request->scope * request->scope, request->scope);
  }
  to_scheduler();  // the last one to come has no head start
}

extern "C" void __sim_collective(int scope, void* slot, Combine combine, const char* what, const char* file, int line) {
  Request q = {combine, slot, (u32)scope, 0};
  wait_in(IN_COLLECTIVE, &q, what, file, line);
}
extern "C" void __sim_simdgroup_barrier(u32 flags, const char* file, int line) {
  Request q = {0, 0, SIMD, flags};
  wait_in(IN_COLLECTIVE, &q, "simdgroup_barrier", file, line);
}
extern "C" void __sim_threadgroup_barrier(u32 flags, const char* file, int line) {
  Request q = {0, 0, 0, flags};
  wait_in(IN_BARRIER, &q, "threadgroup_barrier", file, line);
}
