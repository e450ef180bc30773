// What Python hands over for one launch, and gets back. `launch.py` mirrors these structures with ctypes.
#pragma once
#include "platform.h"

struct __attribute__((aligned(16))) Triple {  // a uint3 of the kernel
  u32 x, y, z, unused;
};

// Values of the attributes, for one thread. `entry.py` declares the same structure, in this order, to the kernel.
struct Attributes {
  Triple thread_position_in_grid, thread_position_in_threadgroup, threadgroup_position_in_grid, threadgroups_per_grid,
      threads_per_grid, threads_per_threadgroup, dispatch_threads_per_threadgroup, grid_origin, grid_size;
  u32 thread_index_in_threadgroup, thread_index_in_simdgroup, simdgroup_index_in_threadgroup,
      simdgroups_per_threadgroup, threads_per_simdgroup, thread_execution_width, thread_index_in_quadgroup,
      quadgroup_index_in_threadgroup, quadgroups_per_threadgroup, dispatch_simdgroups_per_threadgroup,
      dispatch_quadgroups_per_threadgroup;
};

enum BufferFlags : u32 {
  WRITABLE = 1,
  INITIALISED = 2,
  DUPLICATE_WRITES = 4,  // several threads may write the same element
  PARTIAL = 8,           // elements may stay unwritten
};

struct Buffer {
  void* data;  // contents before the launch; for a WRITABLE buffer also where they go afterwards
  u64 size;    // bytes
  u32 element; // bytes
  u32 flags;
  const char* name;
};

enum Kind : u32 {
  OUT_OF_BOUNDS = 1,
  DATA_RACE,
  UNINITIALISED_READ,
  DIVERGENCE,
  READ_ONLY,
  FOREIGN_MEMORY,
  UNDEFINED_BEHAVIOUR,
  UNWRITTEN_OUTPUT,
};

struct Place {  // of a thread
  u32 known;
  u32 thread[3], group[3];
};

struct Report {
  u32 kind, count;
  u64 address, other_address;  // of the instructions, from the start of the object; 0: see file and line, or unknown
  const char* file;
  u32 line, other_line;
  Place place, other_place;
  char text[320];
};

enum Schedule : u32 { FORWARD, REVERSE, RANDOM, GREEDY };

struct Launch {
  u32 grid[3], group[3];  // threads
  Buffer* buffers;
  u32 buffer_count, checked;
  u32 schedule, seed;
  u64 first_group, group_count;  // the range of threadgroups to run; a count of 0 means all
  Report* reports;
  u32 report_limit, report_count;
  u64 accesses, switches, threads;  // statistics
};
