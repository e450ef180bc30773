// The state of the launch in progress. One object is loaded per kernel, and it runs one launch at a time.
#pragma once
#include "interface.h"

static const u32 MAX_THREADS = 1024, SIMD = 32;
static const u64 STACK = 128 * 1024;
static const u64 SLOT = 1ul << 20;   // granularity of the map from addresses to buffers
static const u64 GAP = 512ul << 20;  // unmapped between two buffers, so that a wrong index meets no other buffer

enum Memory : u32 { DEVICE, THREADGROUP };
enum Waiting : u32 { READY, IN_COLLECTIVE, IN_BARRIER, DONE };

typedef void (*Combine)(void** slots, u32 active, int lanes);

// What a waiting thread waits for.
struct Request {
  Combine combine;
  void* slot;
  u32 scope;  // lanes that take part: 32 or 4
  u32 flags;  // mem_flags of a barrier
};

struct Site {  // where in the source, and in which function, a thread waits or waited last
  const char* what;
  const char* file;
  u32 line;
};

struct Thread {
  void* stack;
  u32 waiting;
  u32 index, lane, simdgroup;  // index in the threadgroup
  Site site;
  Request* request;
  u16 epoch[2], simd_epoch[2];  // by Memory: barriers passed, of the threadgroup and of the SIMD-group
  Attributes attributes;
};

// Who touched a byte of threadgroup memory, or an element of an output, last.
struct Shadow {
  u32 write_group, read_group;  // linear index + 1; 0: never
  u32 write_at, read_at;        // instruction
  u16 write_thread, read_thread;
  u16 write_epoch, write_simd_epoch;
  u16 read_epoch, read_simd_epoch;
  u16 second_reader;  // one other than read_thread, if there are several
  u8 flags;
  u8 readers;  // in this epoch: 0 one thread, 1 several of one SIMD-group, 2 of several
};
enum ShadowFlags : u8 { WRITTEN = 1, WRITE_ATOMIC = 2, READ_ATOMIC = 4 };

struct Variable {  // of threadgroup memory
  u64 offset, size, element;
  const char* name;
};
static const u32 MAX_VARIABLES = 256;

static struct State {
  Launch* launch;
  Thread* threads;
  char* stacks;
  void* scheduler;                // its stack
  u32 thread_count, live, current, waiting_in_barrier;
  u32 inside_runtime, aborted;
  u32 group;                      // linear index
  u32 groups[3];                  // threadgroups along each axis
  u64 stack_low;                  // of the current thread
  // device memory
  char* arena;
  u64 arena_size;
  u16* buffer_of_slot;
  char** base;                    // of each buffer
  void** pointers;                // what the kernel gets
  Shadow** shadow;
  // threadgroup memory
  u64 threadgroup_low, threadgroup_size;
  Shadow* threadgroup_shadow;
  u16* variable_of_byte;          // index + 1
  Variable variables[MAX_VARIABLES];
  u32 variable_count;
  u64 accesses, switches;
} state;

static inline Thread* self() { return &state.threads[state.current]; }

static inline void to_scheduler() {
  ++state.switches;
  sim_switch_stack(&self()->stack, state.scheduler);
}

// Give the launch up. The thread that met the error is not continued.
static void abandon() {
  state.aborted = 1;
  for (;;) to_scheduler();
}
