// Small programs whose results must be the same on our core and on another: a compiler's own choice of instructions.
// `kernel(n, rounds)` for n from 0 to KERNELS - 1; those after GENERAL use floating point. With LINUX, a program that
// writes the results of all kernels to standard output, eight bytes each; otherwise an image whose first word is kernel.
typedef unsigned long u64;
typedef long s64;
typedef unsigned int u32;
typedef int s32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef unsigned __int128 u128;

#define GENERAL 10
#ifdef __ARM_FP
#define KERNELS 15
#else
#define KERNELS GENERAL
#endif

static u32 table[256];
static u8 bytes[1024], sieved[8192], copied[8192] __attribute__((aligned(16)));
static u64 words[256];
static u64 seed;

u64 kernel(u64 n, u64 rounds) __attribute__((section(".start")));

static u64 random(void) { seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17; return seed; }

static u64 crc(void) {
  for (u32 i = 0; i < 256; i++) { u32 c = i; for (int k = 0; k < 8; k++) c = c & 1 ? (c >> 1) ^ 0xedb88320u : c >> 1; table[i] = c; }
  u32 c = ~0u;
  for (int k = 0; k < 8; k++) for (int i = 0; i < 1024; i++) c = table[(c ^ bytes[i]) & 255] ^ (c >> 8);
  return c;
}

static u64 sieve(void) {
  u64 count = 0;
  for (int i = 0; i < 8192; i++) sieved[i] = 1;
  for (int i = 2; i < 8192; i++) {
    if (!sieved[i]) continue;
    count = count * 3 + i;
    for (int k = i + i; k < 8192; k += i) sieved[k] = 0;
  }
  return count;
}

static u64 copy(void) {
  u64 *to = (u64 *)copied, *from = (u64 *)sieved, r = 0;
  for (int k = 0; k < 8; k++) {
    for (int i = 0; i < 1024; i++) { to[i] = from[i] + k; asm volatile("" ::: "memory"); }
    r = r * 31 + to[k * 7];
  }
  return r;
}

static u64 hash(void) {
  u64 h = 14695981039346656037ul;
  for (int k = 0; k < 40; k++) for (int i = 0; i < 256; i++) { h = (h ^ words[i]) * 0x9e3779b97f4a7c15ul; h ^= h >> 29; }
  return h;
}

static u64 sort(void) {
  for (int gap = 128; gap > 0; gap /= 2)
    for (int i = gap; i < 256; i++) {
      u64 t = words[i]; int j = i;
      for (; j >= gap && words[j - gap] > t; j -= gap) words[j] = words[j - gap];
      words[j] = t;
    }
  u64 r = 0;
  for (int i = 0; i < 256; i++) r = r * 31 + words[i];
  return r;
}

static u64 __attribute__((noinline)) fib(u64 n) { asm volatile(""); return n < 2 ? n : fib(n - 1) + fib(n - 2); }

static u64 division(void) {
  u64 r = 0;
  for (int i = 0; i < 256; i++) {
    u64 a = words[i], b = words[255 - i] >> (i & 63) | 1;
    r += a / b + a % b * 3 + (u64)((s64)a / (s64)(b | 7)) + (u32)a / ((u32)b | 1) + (u64)((s32)a % (s32)((u16)b | 1)) + (u8)a / ((u8)b | 1);
  }
  return r;
}

static u64 wide(void) {
  u128 a = 1, b = 0;
  for (int i = 0; i < 256; i++) { a = a * words[i] + b; b ^= a << 19; b += (u128)words[i] * words[255 - i]; a -= b >> 3; }
  return (u64)(a >> 64) ^ (u64)a ^ (u64)b;
}

static u64 bits(void) {
  u64 r = 0;
  for (int i = 0; i < 256; i++) {
    u64 v = words[i];
    r += __builtin_ctzl(v | 1ul << 40) + __builtin_clzl(v | 1);
    r = (r >> (v & 63)) | (r << (-v & 63));
    r ^= (u32)((s32)v >> (i & 31)) + (u16)(v >> 3) + (u64)((s64)v >> (i & 63)) + __builtin_bswap64(v);
    if (v & (1ul << (i & 63))) r |= 1ul << (v >> 58);
  }
  return r;
}

static u64 atomics(void) {
  u64 r = 0;
  for (int i = 0; i < 256; i++) {
    r += __atomic_fetch_add(&words[i], i, __ATOMIC_SEQ_CST);
    u64 expected = words[i] & ~1ul;
    r += __atomic_compare_exchange_n(&words[i], &expected, r, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    r ^= __atomic_exchange_n(&words[255 - i], expected, __ATOMIC_SEQ_CST);
    __atomic_or_fetch((u32 *)&words[i], 5, __ATOMIC_SEQ_CST);
  }
  return r;
}

#ifdef __ARM_FP
static double reals[256];
static float singles[256];

static void fill(void) {
  for (int i = 0; i < 256; i++) { reals[i] = (double)(s64)words[i] * 0x1p-60; singles[i] = (float)(s32)words[i] * 0x1p-20f; }
}

static u64 bitsOf(double v) { u64 r; __builtin_memcpy(&r, &v, 8); return r; }

static u64 matrix(void) {
  static double c[256];
  for (int i = 0; i < 16; i++) for (int j = 0; j < 16; j++) {
    double s = 0;
    for (int k = 0; k < 16; k++) s += reals[16 * i + k] * reals[16 * k + j];
    c[16 * i + j] = s;
  }
  u64 r = 0;
  for (int i = 0; i < 256; i++) r = r * 31 + bitsOf(c[i]);
  return r;
}

static u64 mandelbrot(void) {
  u64 r = 0;
  for (int y = 0; y < 24; y++) for (int x = 0; x < 24; x++) {
    double cr = x / 12.0 - 1.5, ci = y / 12.0 - 1.0, a = 0, b = 0;
    int n = 0;
    for (; n < 60 && a * a + b * b < 4; n++) { double t = a * a - b * b + cr; b = 2 * a * b + ci; a = t; }
    r = r * 61 + n;
  }
  return r;
}

static u64 roots(void) {
  u64 r = 0;
  for (int i = 0; i < 256; i++) {
    double v = __builtin_sqrt(__builtin_fabs(reals[i])) + __builtin_fma(reals[i], reals[255 - i], 0.125);
    float f = __builtin_sqrtf(__builtin_fabsf(singles[i])) / (singles[255 - i] + 0.5f);
    r += bitsOf(__builtin_floor(v)) ^ (u64)(s64)(v * 1e6) ^ (u64)(u32)(f * 3.0f) ^ bitsOf(f > 1 ? f : -f);
    r = (r << 9) | (r >> 55);
  }
  return r;
}

// Loops that a compiler turns into SIMD at -O3.
static u64 lanes(void) {
  u32 sum = 0; u64 wide = 0; s32 most = -0x7fffffff; float f = 0;
  for (int i = 0; i < 1024; i++) sum += bytes[i] * 3u + (bytes[i] >> 2);
  for (int i = 0; i < 1024; i++) copied[i] = bytes[i] > 100 ? bytes[i] - 7 : sieved[i] ^ 0x5a;
  for (int i = 0; i < 512; i++) { s32 v = ((s32 *)words)[i]; most = v > most ? v : most; wide += (u64)(u32)v * 17; }
  for (int i = 0; i < 256; i++) singles[i] = singles[i] * 1.5f + (float)bytes[i];
  for (int i = 0; i < 256; i++) f += singles[i];
  for (int i = 0; i < 1024; i++) sum = sum * 31 + copied[i];
  return wide + sum + (u32)most + bitsOf(f);
}

static u64 conversions(void) {
  u64 r = 0;
  for (int i = 0; i < 256; i++) {
    double v = reals[i] * 1e9;
    r += (u64)(s64)v + (u64)(s32)(v * 0.5) + bitsOf((double)(float)v) + bitsOf((double)words[i]) + bitsOf((double)(s64)words[i]);
    r ^= (u64)(s64)__builtin_round(v) + (u64)(s64)__builtin_ceil(v) + bitsOf(__builtin_trunc(v)) + bitsOf(__builtin_rint(v));
  }
  return r;
}
#endif

u64 kernel(u64 n, u64 rounds) {
  u64 r = 0;
  for (u64 k = 0; k < rounds; k++) {
    seed = 88172645463325252ul + n + k;
    for (int i = 0; i < 256; i++) words[i] = random();
    for (int i = 0; i < 1024; i++) bytes[i] = random() >> 11;
    for (int i = 0; i < 8192; i++) sieved[i] = i;
#ifdef __ARM_FP
    fill();
#endif
    switch (n) {
    case 0: r += crc(); break;
    case 1: r += sieve(); break;
    case 2: r += copy(); break;
    case 3: r += hash(); break;
    case 4: r += sort(); break;
    case 5: r += fib(16); break;
    case 6: r += division(); break;
    case 7: r += wide(); break;
    case 8: r += bits(); break;
#ifdef __ARM_FP
    case 10: r += matrix(); break;
    case 11: r += mandelbrot(); break;
    case 12: r += roots(); break;
    case 13: r += lanes(); break;
    case 14: r += conversions(); break;
#endif
    default: r += atomics();
    }
  }
  return r;
}

#ifdef LINUX
asm(".globl _start\n_start: bl start\n");
void start(void) {
  static u64 results[KERNELS];
  for (u64 n = 0; n < KERNELS; n++) results[n] = kernel(n, 1);
  register u64 x8 asm("x8") = 64, x0 asm("x0") = 1, x1 asm("x1") = (u64)results, x2 asm("x2") = sizeof results;
  asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  x8 = 94; x0 = 0;
  asm volatile("svc 0" : "+r"(x0) : "r"(x8));
}
#endif
