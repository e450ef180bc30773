// What the runtime needs of the operating system, the object format and the processor. There is no C library header:
// kernels are compiled without one, and so is this.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

extern "C" {
void* mmap(void*, u64, int, int, int, long);
int munmap(void*, u64);
void* calloc(u64, u64);
void free(void*);
void* memset(void*, int, u64);
void* memcpy(void*, const void*, u64);
void* memmove(void*, const void*, u64);
int snprintf(char*, u64, const char*, ...);
}

// The section with the threadgroup variables, and where the loaded object begins and ends.
#define SECTION "sim_threadgroup"
#define HIDDEN __attribute__((weak, visibility("hidden")))
extern "C" {
extern char __start_sim_threadgroup[] HIDDEN;
extern char __stop_sim_threadgroup[] HIDDEN;
extern char __ehdr_start[] HIDDEN;
extern char _end[] HIDDEN;
}

// Memory that costs nothing until it is touched.
static inline void* reserve(u64 size) {
  const int read_write = 3, private_anonymous_noreserve = 0x4022;
  void* p = mmap(0, size, read_write, private_anonymous_noreserve, -1, 0);
  return p == (void*)-1 ? 0 : p;
}

// switch_stack(&here, there): save this stack pointer and go on where the other one was saved. Only the registers that
// a callee must keep are saved, as it is an ordinary call for the compiler.
extern "C" void sim_switch_stack(void** save, void* load);

#if defined(__x86_64__)
asm(R"(
.text
.globl sim_switch_stack
.hidden sim_switch_stack
.type sim_switch_stack,@function
sim_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp,(%rdi)
  movq %rsi,%rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size sim_switch_stack,.-sim_switch_stack
)");

// A stack on which the first switch calls `entry`.
static inline void* new_stack(char* top, void (*entry)()) {
  void** sp = (void**)((u64)top & ~15ul);
  *--sp = 0;             // no caller; rsp % 16 == 8 on entry, as after a call
  *--sp = (void*)entry;
  for (int i = 0; i < 6; ++i) *--sp = 0;
  return sp;
}
#elif defined(__aarch64__)
asm(R"(
.text
.globl sim_switch_stack
.hidden sim_switch_stack
.type sim_switch_stack,@function
sim_switch_stack:
  sub sp,sp,#160
  stp x19,x20,[sp,#0]
  stp x21,x22,[sp,#16]
  stp x23,x24,[sp,#32]
  stp x25,x26,[sp,#48]
  stp x27,x28,[sp,#64]
  stp x29,x30,[sp,#80]
  stp d8,d9,[sp,#96]
  stp d10,d11,[sp,#112]
  stp d12,d13,[sp,#128]
  stp d14,d15,[sp,#144]
  mov x9,sp
  str x9,[x0]
  mov sp,x1
  ldp x19,x20,[sp,#0]
  ldp x21,x22,[sp,#16]
  ldp x23,x24,[sp,#32]
  ldp x25,x26,[sp,#48]
  ldp x27,x28,[sp,#64]
  ldp x29,x30,[sp,#80]
  ldp d8,d9,[sp,#96]
  ldp d10,d11,[sp,#112]
  ldp d12,d13,[sp,#128]
  ldp d14,d15,[sp,#144]
  add sp,sp,#160
  ret
.size sim_switch_stack,.-sim_switch_stack
)");

static inline void* new_stack(char* top, void (*entry)()) {
  u64* sp = (u64*)((u64)top & ~15ul) - 20;
  memset(sp, 0, 160);
  sp[11] = (u64)entry;  // x30, the return address
  return sp;
}
#else
#error "the simulator switches stacks on x86-64 and aarch64 only"
#endif
