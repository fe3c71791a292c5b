// Prints what this x86-64 processor's SSE2 and FMA instructions answer to random and special operands, in all four
// rounding modes: `operation mode operands = result exceptions`, patterns in hexadecimal, exceptions as letters
// I (invalid), Z (division by zero), O (overflow), U (underflow), X (inexact). Arguments: cases an operation, seed.
#include <immintrin.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned long long u64;
typedef unsigned int u32;

static u64 seed;
static u64 random64(void) { seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17; return seed * 0x2545f4914f6cdd1dull; }

static const u64 doubles[] = {
  0, 1ull << 63, 0x3ff0000000000000, 0xbff0000000000000, 0x7ff0000000000000, 0xfff0000000000000, 0x7ff8000000000000,
  0x7ff0000000000001, 1, 0x800fffffffffffff, 0x0010000000000000, 0x7fefffffffffffff, 0x3fe0000000000000,
  0x4004000000000000, 0x4330000000000001, 0x43e0000000000000, 0xc3e0000000000000, 0x41dfffffffe00000,
  0x36a0000000000000, 0x380fffffe0000000, 0x47efffffefffffff, 0x47effffff0000000, 0x3ff0000010000000,
};
static const u32 singles[] = {
  0, 0x80000000, 0x3f800000, 0xbf800000, 0x7f800000, 0xff800000, 0x7fc00000, 0x7f800001, 1, 0x807fffff, 0x00800000,
  0x7f7fffff, 0x3f000000, 0x40200000, 0x4b000001, 0x4f000000, 0xcf000000, 0x5f000000, 0x3f7fffff, 0x33800001,
};

static u64 draw_double(void) {
  u64 r = random64(), exponent = 1023 + random64() % 64 - 32;
  if (r % 4 == 0) return doubles[(r >> 8) % (sizeof doubles / sizeof *doubles)];
  if (r % 4 == 1) return random64();
  if (r % 8 == 2) exponent = random64() % 2 ? 1 + random64() % 60 : 2046 - random64() % 60;
  return (r & 1ull << 63) | exponent << 52 | (random64() & (r & 16 ? 0xfffffffffffff : 0xffffff0000000));
}
static u32 draw_single(void) {
  u64 r = random64(); u32 exponent = 127 + random64() % 50 - 25;
  if (r % 4 == 0) return singles[(r >> 8) % (sizeof singles / sizeof *singles)];
  if (r % 4 == 1) return (u32)random64();
  if (r % 8 == 2) exponent = random64() % 2 ? 1 + random64() % 26 : 254 - random64() % 26;
  return (u32)(r >> 32 & 1u << 31) | exponent << 23 | (u32)(random64() & (r & 16 ? 0x7fffff : 0x7ff000));
}

static double as_double(u64 v) { double d; memcpy(&d, &v, 8); return d; }
static float as_single(u32 v) { float f; memcpy(&f, &v, 4); return f; }
static u64 of_double(double d) { u64 v; memcpy(&v, &d, 8); return v; }
static u32 of_single(float f) { u32 v; memcpy(&v, &f, 4); return v; }

// MXCSR: rounding control in bits 14:13 (nearest, down, up, zero), all exceptions masked.
static const char *const modes[] = { "nearest", "minus", "plus", "zero" };
static void enter(int mode) { _mm_setcsr(0x1f80 | mode << 13); }
static const char *flags(void) {
  static char text[6]; char *p = text; u32 s = _mm_getcsr();
  if (s & 1) *p++ = 'I';
  if (s & 4) *p++ = 'Z';
  if (s & 8) *p++ = 'O';
  if (s & 16) *p++ = 'U';
  if (s & 32) *p++ = 'X';
  if (p == text) *p++ = '-';
  *p = 0;
  return text;
}

#define BINARY(name, op) \
  static void name##_d(int m) { u64 a = draw_double(), b = draw_double(); double x = as_double(a), y = as_double(b); enter(m); \
    asm volatile(op "sd %1, %0" : "+x"(x) : "x"(y)); printf("%s.d %s %016llx %016llx = %016llx %s\n", #name, modes[m], a, b, of_double(x), flags()); } \
  static void name##_s(int m) { u32 a = draw_single(), b = draw_single(); float x = as_single(a), y = as_single(b); enter(m); \
    asm volatile(op "ss %1, %0" : "+x"(x) : "x"(y)); printf("%s.s %s %08x %08x = %08x %s\n", #name, modes[m], a, b, of_single(x), flags()); }
BINARY(add, "add")
BINARY(sub, "sub")
BINARY(mul, "mul")
BINARY(div, "div")

static void sqrt_d(int m) { u64 a = draw_double() & (random64() % 8 ? ~0ull >> 1 : ~0ull); double x = as_double(a), r; enter(m);
  asm volatile("sqrtsd %1, %0" : "=x"(r) : "x"(x)); printf("sqrt.d %s %016llx = %016llx %s\n", modes[m], a, of_double(r), flags()); }
static void sqrt_s(int m) { u32 a = draw_single() & (random64() % 8 ? ~0u >> 1 : ~0u); float x = as_single(a), r; enter(m);
  asm volatile("sqrtss %1, %0" : "=x"(r) : "x"(x)); printf("sqrt.s %s %08x = %08x %s\n", modes[m], a, of_single(r), flags()); }

static void fma_d(int m) { u64 a = draw_double(), b = draw_double(), c = draw_double(); double x = as_double(a), y = as_double(b), z = as_double(c);
  if (random64() % 2) { z = -(x * y) * (random64() % 2 ? 1 : 1 + 1e-15); c = of_double(z); }  // cancellation
  enter(m); asm volatile("vfmadd213sd %2, %1, %0" : "+x"(x) : "x"(y), "x"(z));
  printf("fma.d %s %016llx %016llx %016llx = %016llx %s\n", modes[m], a, b, c, of_double(x), flags()); }
static void fma_s(int m) { u32 a = draw_single(), b = draw_single(), c = draw_single(); float x = as_single(a), y = as_single(b), z = as_single(c);
  if (random64() % 2) { z = -(x * y) * (random64() % 2 ? 1 : 1 + 1e-6f); c = of_single(z); }
  enter(m); asm volatile("vfmadd213ss %2, %1, %0" : "+x"(x) : "x"(y), "x"(z));
  printf("fma.s %s %08x %08x %08x = %08x %s\n", modes[m], a, b, c, of_single(x), flags()); }

static void narrow(int m) { u64 a = draw_double(); double x = as_double(a); float r = 0; enter(m);
  asm volatile("cvtsd2ss %1, %0" : "+x"(r) : "x"(x)); printf("narrow %s %016llx = %08x %s\n", modes[m], a, of_single(r), flags()); }
static void widen(int m) { u32 a = draw_single(); float x = as_single(a); double r = 0; enter(m);
  asm volatile("cvtss2sd %1, %0" : "+x"(r) : "x"(x)); printf("widen %s %08x = %016llx %s\n", modes[m], a, of_double(r), flags()); }
static void to_int(int m) { u64 a = draw_double(); double x = as_double(a); u64 r; enter(m);
  asm volatile("cvtsd2si %1, %0" : "=r"(r) : "x"(x)); printf("toint %s %016llx = %016llx %s\n", modes[m], a, r, flags()); }
static void from_int_d(int m) { u64 a = random64() >> random64() % 64; double r = 0; if (random64() & 1) a = -a; enter(m);
  asm volatile("cvtsi2sdq %1, %0" : "+x"(r) : "r"(a)); printf("fromint.d %s %016llx = %016llx %s\n", modes[m], a, of_double(r), flags()); }
static void from_int_s(int m) { u64 a = random64() >> random64() % 64; float r = 0; if (random64() & 1) a = -a; enter(m);
  asm volatile("cvtsi2ssq %1, %0" : "+x"(r) : "r"(a)); printf("fromint.s %s %016llx = %08x %s\n", modes[m], a, of_single(r), flags()); }

int main(int argc, char **argv) {
  void (*const ops[])(int) = { add_d, add_s, sub_d, sub_s, mul_d, mul_s, div_d, div_s, sqrt_d, sqrt_s, narrow, widen, to_int, from_int_d, from_int_s, fma_d, fma_s };
  unsigned n = sizeof ops / sizeof *ops;
  seed = strtoull(argv[2], 0, 0) * 0x9e3779b97f4a7c15ull | 1;
  if (argc < 3 || !__builtin_cpu_supports("fma")) n -= 2;
  for (unsigned i = 0; i < n; i++) for (int k = 0, count = atoi(argv[1]); k < count; k++) { _mm_setcsr(0x1f80); ops[i](k % 4); }
  return 0;
}
