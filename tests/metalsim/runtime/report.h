// Findings. The same fault at the same place is reported once, and counted.
#pragma once
#include "state.h"

static inline u64 from_start(u64 address) { return address ? address - (u64)__ehdr_start : 0; }

static Place place_of(const Thread* t) {
  const Triple &p = t->attributes.thread_position_in_threadgroup, &g = t->attributes.threadgroup_position_in_grid;
  return {1, {p.x, p.y, p.z}, {g.x, g.y, g.z}};
}

// Of a thread that may be gone, by its linear indices.
static Place place_of(u32 group, u32 thread) {
  const u32* n = state.groups;
  Place p = {1, {}, {group % n[0], group / n[0] % n[1], group / (n[0] * n[1])}};
  u32 size[3];
  for (int i = 0; i < 3; ++i) {
    u32 left = state.launch->grid[i] - p.group[i] * state.launch->group[i];
    size[i] = left < state.launch->group[i] ? left : state.launch->group[i];
  }
  p.thread[0] = thread % size[0];
  p.thread[1] = thread / size[0] % size[1];
  p.thread[2] = thread / (size[0] * size[1]);
  return p;
}

// A new report for the current thread, or 0 if there is one of this kind and place already, or no room.
static Report* report(Kind kind, u64 address, const Site* site = 0) {
  Launch* launch = state.launch;
  u64 at = from_start(address);
  for (u32 i = 0; i < launch->report_count; ++i) {
    Report* r = &launch->reports[i];
    if (r->kind == kind && r->address == at && (!site || (r->line == site->line && r->file == site->file))) {
      r->count++;
      return 0;
    }
  }
  if (launch->report_count >= launch->report_limit) return 0;
  Report* r = &launch->reports[launch->report_count++];
  memset(r, 0, sizeof *r);
  r->kind = kind;
  r->count = 1;
  r->address = at;
  if (site) r->file = site->file, r->line = site->line;
  if (state.threads && state.current < state.thread_count) r->place = place_of(self());
  return r;
}

#define SAY(r, ...) snprintf((r)->text, sizeof (r)->text, __VA_ARGS__)
