/* Runs instruction cases for the differential test of the A64 core.
 *
 * Standard input holds records (struct in), standard output receives one struct out for each. A case starts by
 * returning from a signal with its registers, and ends with another signal: an undefined word follows the code and
 * fills the rest of its slot, so the signal's context tells where execution went and what all registers hold.
 * It lies above 4 GiB, where no small number points by chance:
 * aarch64-linux-gnu-gcc -O2 -ffreestanding -nostdlib -static -Wl,-Ttext-segment=0x5500000000
 */
typedef unsigned int u32;
typedef unsigned long u64;

#define CODE 0x1000000000ul
#define SLOT_WORDS 64
#define FIRST_WORD 32
#define SLOTS 1024
#define WINDOW (CODE + 0x80000)
#define MOST_WORDS 8

struct registers { u64 x[31], sp, nzcv; u32 fpcr, fpsr; u64 v[64]; };
struct in { u32 code[MOST_WORDS]; u32 words, slot, seed, pad; struct registers r; };
struct out { u32 signal, hash; u64 pc; struct registers r; };

struct fpsimd { u32 magic, size, fpsr, fpcr; u64 v[64]; };
struct machine {
  u64 fault, x[31], sp, pc, pstate;
  unsigned char reserved[4096] __attribute__((aligned(16)));
};
struct context { u64 flags; void *link; u64 stack[3]; u64 mask[16]; struct machine m; };
struct action { void (*handler)(int, void *, struct context *); u64 flags; void (*restorer)(void); u64 mask; };

static long call(long n, long a, long b, long c, long d, long e, long f)
{
  register long x8 asm("x8") = n, x0 asm("x0") = a, x1 asm("x1") = b, x2 asm("x2") = c;
  register long x3 asm("x3") = d, x4 asm("x4") = e, x5 asm("x5") = f;
  asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}

static struct in in[SLOTS];
static struct out out[SLOTS];
static unsigned char stack[65536] __attribute__((aligned(16)));
static long count, current = -1;
static u32 *const window = (u32 *)WINDOW;

static u32 *code_of(long i) { return (u32 *)CODE + (long)in[i].slot * SLOT_WORDS + FIRST_WORD; }

static void read_batch(void)
{
  long got = 0, r = 1;
  while (got < (long)sizeof in && r != 0) {   /* errors pass: interrupted, nothing there yet */
    r = call(63, 0, (long)in + got, sizeof in - got, 0, 0, 0);
    if (r > 0) got += r;
  }
  count = got / (long)sizeof in[0];
  if (count == 0) call(94, 0, 0, 0, 0, 0, 0);
  for (long i = 0; i < count; i++) {
    u32 *at = code_of(i);
    for (int k = -FIRST_WORD; k < SLOT_WORDS - FIRST_WORD; k++) at[k] = 0;
    for (u32 k = 0; k < in[i].words; k++) at[k] = in[i].code[k];
  }
  for (u64 p = CODE; p < CODE + SLOTS * SLOT_WORDS * 4; p += 16)
    asm volatile("dc cvau, %0\n ic ivau, %0" :: "r"(p));
  asm volatile("dsb ish\n isb");
}

static void write_batch(void)
{
  long put = 0, size = count * (long)sizeof out[0];
  while (put < size) {
    long r = call(64, 1, (long)out + put, size - put, 0, 0, 0);
    if (r > 0) put += r;
  }
}

static struct fpsimd *fpsimd_of(struct context *c)
{
  struct fpsimd *f = (struct fpsimd *)c->m.reserved;
  while (f->magic != 0x46508001) f = (struct fpsimd *)((char *)f + f->size);
  return f;
}

static void handle(int signal, void *info, struct context *c)
{
  struct fpsimd *f = fpsimd_of(c);
  (void)info;
  if (current >= 0) {
    struct out *o = &out[current];
    u32 hash = 2166136261u;
    for (int k = 0; k < 1024; k++) hash = (hash ^ window[k]) * 16777619u;
    o->signal = signal;
    o->hash = hash;
    o->pc = c->m.pc;
    for (int k = 0; k < 31; k++) o->r.x[k] = c->m.x[k];
    o->r.sp = c->m.sp;
    o->r.nzcv = c->m.pstate & 0xf0000000;
    o->r.fpcr = f->fpcr;
    o->r.fpsr = f->fpsr;
    for (int k = 0; k < 64; k++) o->r.v[k] = f->v[k];
  }
  if (++current >= count) {
    if (count) write_batch();
    read_batch();
    current = 0;
  }
  const struct in *n = &in[current];
  u32 x = n->seed;
  for (int k = 0; k < 1024; k++) window[k] = x = x * 1664525u + 1013904223u;
  c->m.pc = (u64)code_of(current);
  for (int k = 0; k < 31; k++) c->m.x[k] = n->r.x[k];
  c->m.sp = n->r.sp;
  c->m.pstate = n->r.nzcv;
  f->fpcr = n->r.fpcr;
  f->fpsr = n->r.fpsr;
  for (int k = 0; k < 64; k++) f->v[k] = n->r.v[k];
}

asm(".globl restore\nrestore: mov x8, #139\n svc #0\n"
    ".globl _start\n_start: bl start\n");
extern void restore(void);

void start(void)
{
  static const int signals[] = { 4, 5, 7, 8, 11 };
  struct { void *sp; long flags; u64 size; } alternate = { stack, 0, sizeof stack };
  struct action a = { handle, 0x0c000004, restore, 0 };   /* SA_RESTORER, SA_ONSTACK, SA_SIGINFO */
  call(222, CODE, SLOTS * SLOT_WORDS * 4, 7, 0x32, -1, 0);
  call(222, WINDOW, 4096, 3, 0x32, -1, 0);
  call(132, (long)&alternate, 0, 0, 0, 0, 0);
  for (int k = 0; k < 5; k++) call(134, signals[k], (long)&a, 0, 8, 0, 0);
  asm volatile("udf #0");
}
