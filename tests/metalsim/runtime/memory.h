// Every access of a kernel is looked up here. `-fsanitize=thread` is used as an instrumentation pass only: it inserts
// calls of __tsan_read4(p) and the like, which are defined below instead of in the sanitizer's own runtime.
#pragma once
#include "report.h"

struct Access {
  u64 address;
  u32 size;
  bool write, atomic;
  u64 at;  // the instruction
};

static void race(const Access& a, const char* object, long index, const char* how, u32 group, u32 thread, u32 at) {
  Report* r = report(DATA_RACE, a.at);
  if (!r) return;
  r->other_address = at;
  r->other_place = place_of(group, thread);
  SAY(r, "%s[%ld] is %s another thread %s it, with no barrier in between", object, index,
      a.write ? "written after" : "read after", how);
}

// Whether a barrier lies between an earlier access and this thread's, for a thread of this threadgroup.
static inline bool ordered(const Thread* t, Memory m, u16 thread, u16 epoch, u16 simd_epoch) {
  return epoch != t->epoch[m] || (thread / SIMD == t->index / SIMD && simd_epoch != t->simd_epoch[m]);
}

// Compare an access with the last ones to the same place, and remember it. Nothing orders two threadgroups.
static inline void follow(Shadow* s, const Access& a, Memory m, const char* object, long index, bool duplicates) {
  const Thread* t = self();
  const u32 group = state.group + 1;
  const u16 me = t->index;
  if (s->write_group && (s->write_group != group || s->write_thread != me)) {
    bool fine = s->write_group != group ? m == THREADGROUP
                                        : ordered(t, m, s->write_thread, s->write_epoch, s->write_simd_epoch);
    if (!fine && !(a.atomic && (s->flags & WRITE_ATOMIC)) && !(a.write && duplicates))
      race(a, object, index, "wrote", s->write_group - 1, s->write_thread, s->write_at);
  }
  if (a.write) {
    if (s->read_group && (s->read_group != group || s->read_thread != me || s->readers)) {
      bool fine = s->read_group != group
          ? m == THREADGROUP
          : s->read_epoch != t->epoch[m] ||
              (s->readers < 2 && ordered(t, m, s->read_thread, s->read_epoch, s->read_simd_epoch));
      if (!fine && !(a.atomic && (s->flags & READ_ATOMIC)))
        race(a, object, index, "read", s->read_group - 1,
             s->read_group == group && s->read_thread == me ? s->second_reader : s->read_thread, s->read_at);
    }
    // What a thread wrote plainly since the last barrier stays a plain write, even if an atomic one came after it.
    bool atomic = a.atomic && !(s->write_group == group && s->write_thread == me && s->write_epoch == t->epoch[m] &&
                                (s->flags & WRITTEN) && !(s->flags & WRITE_ATOMIC));
    s->write_group = group, s->write_thread = me, s->write_at = (u32)from_start(a.at);
    s->write_epoch = t->epoch[m], s->write_simd_epoch = t->simd_epoch[m];
    s->flags = (s->flags & READ_ATOMIC) | WRITTEN | (atomic ? WRITE_ATOMIC : 0);
    return;
  }
  if (s->read_group != group || s->read_epoch != t->epoch[m]) {
    s->readers = 0;
    s->flags = (s->flags & ~READ_ATOMIC) | (a.atomic ? READ_ATOMIC : 0);
  } else {
    if (!a.atomic) s->flags &= ~READ_ATOMIC;
    if (s->read_thread != me) {
      if (s->read_thread / SIMD != me / SIMD) s->readers = 2;
      else if (!s->readers) s->readers = 1;
      s->second_reader = me;
      if (s->readers == 2 || s->read_simd_epoch == t->simd_epoch[m]) return;  // the first reader stands for all
    }
  }
  if (s->readers) s->second_reader = s->read_thread;
  s->read_group = group, s->read_thread = me, s->read_at = (u32)from_start(a.at);
  s->read_epoch = t->epoch[m], s->read_simd_epoch = t->simd_epoch[m];
}

static const char* verb(const Access& a) { return a.write ? "write" : "read"; }

static u64 distance(u64 address, u64 low, u64 high) {
  return address < low ? low - address : address >= high ? address - high : 0;
}

// The launch ends with it: what lies there is not known.
static void __attribute__((noinline)) outside_buffers(const Access& a) {
  if (Report* r = report(OUT_OF_BOUNDS, a.at)) {
    const Launch* l = state.launch;
    if (a.address - (u64)state.arena < state.arena_size && l->buffer_count) {
      u32 nearest = 0;
      for (u32 i = 1; i < l->buffer_count; ++i) {
        u64 b = (u64)state.base[i], n = (u64)state.base[nearest];
        if (distance(a.address, b, b + l->buffers[i].size) < distance(a.address, n, n + l->buffers[nearest].size))
          nearest = i;
      }
      const Buffer& b = l->buffers[nearest];
      long offset = (long)(a.address - (u64)state.base[nearest]), element = b.element;
      long index = offset < 0 ? -((element - 1 - offset) / element) : offset / element;
      SAY(r, "%s of %u bytes at %s[%ld]; %s has %lu elements", verb(a), a.size, b.name, index, b.name, b.size / b.element);
    } else {
      SAY(r, "%s of %u bytes at an address that belongs to no buffer", verb(a), a.size);
    }
  }
  abandon();
}

static void __attribute__((noinline)) outside_variables(const Access& a) {
  if (Report* r = report(OUT_OF_BOUNDS, a.at)) {
    u64 offset = a.address - state.threadgroup_low;
    const Variable* nearest = 0;
    u64 least = ~0ul;
    for (u32 i = 0; i < state.variable_count; ++i) {
      const Variable* v = &state.variables[i];
      u64 d = offset < v->offset ? v->offset - offset : offset + a.size > v->offset + v->size
          ? offset + a.size - v->offset - v->size : 0;
      if (d < least) least = d, nearest = v;
    }
    if (nearest)
      SAY(r, "%s of %u bytes in threadgroup memory, %s %s (%lu bytes)", verb(a), a.size,
          offset < nearest->offset ? "before" : "past the end of", nearest->name, nearest->size);
    else
      SAY(r, "%s of %u bytes in threadgroup memory that holds no variable", verb(a), a.size);
  }
  abandon();
}

static void in_buffer(const Access& a, u64 arena_offset) {
  u16 index = state.buffer_of_slot[arena_offset / SLOT];
  if (index == 0xffff) outside_buffers(a);
  const Buffer* b = &state.launch->buffers[index];
  u64 offset = a.address - (u64)state.base[index];
  if (offset + a.size > b->size) outside_buffers(a);
  if (a.write && !(b->flags & WRITABLE))
    if (Report* r = report(READ_ONLY, a.at)) SAY(r, "write to the input %s", b->name);
  Shadow* shadow = state.shadow[index];
  if (!shadow) return;
  for (u64 i = offset / b->element; i <= (offset + a.size - 1) / b->element; ++i) {
    if (!a.write && !(shadow[i].flags & WRITTEN) && !(b->flags & INITIALISED))
      if (Report* r = report(UNINITIALISED_READ, a.at))
        SAY(r, "the output %s[%lu] is read before anything wrote it", b->name, i);
    follow(&shadow[i], a, DEVICE, b->name, i, b->flags & DUPLICATE_WRITES);
  }
}

static void in_threadgroup_memory(const Access& a, u64 offset) {
  u64 last = offset + a.size - 1;
  u16 index = state.variable_of_byte[offset];
  if (!index || last >= state.threadgroup_size || state.variable_of_byte[last] != index) outside_variables(a);
  const Variable* v = &state.variables[index - 1];
  for (u64 i = offset; i <= last; ++i) {
    Shadow* s = &state.threadgroup_shadow[i];
    if (s->write_group != state.group + 1) {
      s->flags = 0;
      s->write_group = 0;
      if (!a.write)
        if (Report* r = report(UNINITIALISED_READ, a.at))
          SAY(r, "threadgroup memory %s[%lu] is read before anything wrote it", v->name, (i - v->offset) / v->element);
    }
    follow(s, a, THREADGROUP, v->name, (i - v->offset) / v->element, false);
  }
}

static inline __attribute__((always_inline)) void check(u64 address, u32 size, bool write, bool atomic, void* after) {
  if (state.inside_runtime || !state.launch) return;
  ++state.accesses;
  if (address - state.stack_low < STACK) return;  // the thread's own
  Access a = {address, size, write, atomic, (u64)after - 1};
  if (u64 offset = address - (u64)state.arena; offset < state.arena_size) return in_buffer(a, offset);
  if (u64 offset = address - state.threadgroup_low; offset < state.threadgroup_size)
    return in_threadgroup_memory(a, offset);
  if (address - (u64)state.stacks < STACK * MAX_THREADS) {
    if (Report* r = report(FOREIGN_MEMORY, a.at)) SAY(r, "%s of another thread's own variables", verb(a));
    return;
  }
  if (address >= (u64)__ehdr_start && address < (u64)_end) {
    if (write)
      if (Report* r = report(READ_ONLY, a.at)) SAY(r, "write to a constant of the program");
    return;
  }
  outside_buffers(a);
}

static void check_range(u64 address, u64 size, bool write, void* after) {
  for (u64 i = 0; i < size; i += 16) check(address + i, size - i < 16 ? size - i : 16, write, false, after);
}

#define AFTER __builtin_return_address(0)
#define HOOKS(prefix, n)                                                                              \
  extern "C" void __tsan_##prefix##read##n(void* p) { check((u64)p, n, false, false, AFTER); }        \
  extern "C" void __tsan_##prefix##write##n(void* p) { check((u64)p, n, true, false, AFTER); }        \
  extern "C" void __tsan_##prefix##read_write##n(void* p) {                                           \
    check((u64)p, n, false, false, AFTER);                                                            \
    check((u64)p, n, true, false, AFTER);                                                             \
  }
#define HOOKS_OF_SIZE(n) HOOKS(, n) HOOKS(unaligned_, n)
HOOKS_OF_SIZE(1) HOOKS_OF_SIZE(2) HOOKS_OF_SIZE(4) HOOKS_OF_SIZE(8) HOOKS_OF_SIZE(16)
extern "C" void __tsan_init() {}
extern "C" void* __tsan_memcpy(void* to, const void* from, u64 n) {
  check_range((u64)from, n, false, AFTER);
  check_range((u64)to, n, true, AFTER);
  return memcpy(to, from, n);
}
extern "C" void* __tsan_memmove(void* to, const void* from, u64 n) {
  check_range((u64)from, n, false, AFTER);
  check_range((u64)to, n, true, AFTER);
  return memmove(to, from, n);
}
extern "C" void* __tsan_memset(void* to, int value, u64 n) {
  check_range((u64)to, n, true, AFTER);
  return memset(to, value, n);
}

// Called by the atomic functions of metal_stdlib: how is 0 for a load, 1 for a store, 2 for both.
extern "C" void __sim_atomic_access(const void* p, u32 size, int how) {
  if (!state.launch || !state.launch->checked) return;
  if ((u64)p % size)
    if (Report* r = report(UNDEFINED_BEHAVIOUR, (u64)AFTER - 1)) SAY(r, "misaligned atomic");
  if (how != 1) check((u64)p, size, false, true, AFTER);
  if (how != 0) check((u64)p, size, true, true, AFTER);
}

// Called where a threadgroup variable is declared, by every thread.
extern "C" void __sim_declare(const void* p, u64 size, u64 element, const char* name) {
  u64 offset = (u64)p - state.threadgroup_low;
  if (offset >= state.threadgroup_size || !state.variable_of_byte || state.variable_of_byte[offset]) return;
  if (state.variable_count == MAX_VARIABLES) return;
  state.variables[state.variable_count++] = {offset, size, element, name};
  for (u64 i = 0; i < size; ++i) state.variable_of_byte[offset + i] = state.variable_count;
}
