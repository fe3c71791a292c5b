// Runs instruction cases on the host's own processor: stdin to stdout, see support/cases.ts for the records.
// Registers, flags and a 4 KiB window at a fixed address come from the case; what they are afterwards goes out,
// or the signal and the registers at the faulting instruction.
#define _GNU_SOURCE
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define CONTEXT 0x10000000ul
#define CODE 0x20000000ul
#define DATA 0x30000000ul
#define GS_BASE 0x100ul
#define CODE_BYTES 32

struct input { uint64_t regs[16], flags; uint32_t seed, length; uint8_t code[CODE_BYTES]; };
struct output { uint64_t regs[16], flags, rip; uint32_t signal, hash; };
// The assembly below knows these offsets.
struct context { uint64_t regs[16], flags, entry, exit, host_rsp; };

static struct context *const context = (struct context *)CONTEXT;
static struct output result;

void case_run(void);
void case_exit(void);
void case_recover(void);
__asm__(
  ".text\n.globl case_run\ncase_run:\n"
  "push %rbx; push %rbp; push %r12; push %r13; push %r14; push %r15\n"
  "mov %rsp, 0x10000098\n"
  "pushq 0x10000080; popfq\n"
  "mov 0x10000000, %rax; mov 0x10000008, %rcx; mov 0x10000010, %rdx; mov 0x10000018, %rbx\n"
  "mov 0x10000020, %rsp; mov 0x10000028, %rbp; mov 0x10000030, %rsi; mov 0x10000038, %rdi\n"
  "mov 0x10000040, %r8; mov 0x10000048, %r9; mov 0x10000050, %r10; mov 0x10000058, %r11\n"
  "mov 0x10000060, %r12; mov 0x10000068, %r13; mov 0x10000070, %r14; mov 0x10000078, %r15\n"
  "jmp *0x10000088\n"
  ".globl case_exit\ncase_exit:\n"
  "mov %rax, 0x10000000; mov %rcx, 0x10000008; mov %rdx, 0x10000010; mov %rbx, 0x10000018\n"
  "mov %rsp, 0x10000020; mov %rbp, 0x10000028; mov %rsi, 0x10000030; mov %rdi, 0x10000038\n"
  "mov %r8, 0x10000040; mov %r9, 0x10000048; mov %r10, 0x10000050; mov %r11, 0x10000058\n"
  "mov %r12, 0x10000060; mov %r13, 0x10000068; mov %r14, 0x10000070; mov %r15, 0x10000078\n"
  "mov 0x10000098, %rsp\n"
  "pushfq; popq 0x10000080\n"
  ".globl case_recover\ncase_recover:\n"
  "cld\n"
  "pop %r15; pop %r14; pop %r13; pop %r12; pop %rbp; pop %rbx\n"
  "ret\n");

static const int order[16] = { REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                               REG_R8, REG_R9, REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15 };

static void on_signal(int signal, siginfo_t *info, void *raw) {
  (void)info;
  greg_t *g = ((ucontext_t *)raw)->uc_mcontext.gregs;
  for (int i = 0; i < 16; i++) context->regs[i] = g[order[i]];
  context->flags = g[REG_EFL];
  result.signal = signal;
  result.rip = g[REG_RIP];
  g[REG_RIP] = (greg_t)case_recover;
  g[REG_RSP] = context->host_rsp;
  g[REG_EFL] &= ~0x400;
}

static void *fixed(uint64_t at, size_t size, int prot) {
  return mmap((void *)at, size, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

int main(void) {
  if (fixed(CONTEXT, 4096, PROT_READ | PROT_WRITE) != (void *)CONTEXT) return 2;
  if (fixed(CODE, 4096, PROT_READ | PROT_WRITE | PROT_EXEC) != (void *)CODE) return 2;
  if (fixed(DATA, 4096, PROT_READ | PROT_WRITE) != (void *)DATA) return 2;
  if (syscall(SYS_arch_prctl, 0x1001, GS_BASE) != 0) return 3;
  static uint8_t stack[65536];
  stack_t alternate = { .ss_sp = stack, .ss_size = sizeof stack };
  sigaltstack(&alternate, 0);
  struct sigaction action = { .sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK };
  const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP };
  for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) sigaction(signals[i], &action, 0);

  struct input in;
  uint32_t *const window = (uint32_t *)DATA;
  uint8_t *const code = (uint8_t *)CODE;
  while (fread(&in, sizeof in, 1, stdin) == 1) {
    uint32_t x = in.seed;
    for (int i = 0; i < 1024; i++) window[i] = x = x * 1664525u + 1013904223u;
    memcpy(code, in.code, in.length);
    const uint8_t leave[] = { 0xff, 0x24, 0x25, 0x90, 0x00, 0x00, 0x10 };   // jmp *context->exit
    memcpy(code + in.length, leave, sizeof leave);
    memcpy(context->regs, in.regs, sizeof in.regs);
    context->flags = in.flags;
    context->entry = CODE;
    context->exit = (uint64_t)case_exit;
    memset(&result, 0, sizeof result);
    result.rip = CODE + in.length;
    case_run();
    memcpy(result.regs, context->regs, sizeof result.regs);
    result.flags = context->flags;
    uint32_t hash = 2166136261u;
    for (int i = 0; i < 1024; i++) hash = (hash ^ window[i]) * 16777619u;
    result.hash = hash;
    fwrite(&result, sizeof result, 1, stdout);
  }
  return 0;
}
