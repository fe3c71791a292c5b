// Programs of floating point and SIMD whose results must be the same here and on another implementation: gcc's own
// choice of instructions at -O2 and -O3, and what C libraries do by hand. `kernel(n)` for n from 0 to KERNELS - 1.
// NATIVE builds a program that prints the results; otherwise the image starts with a call of kernel(X0) and a BRK.
#include <arm_neon.h>
typedef unsigned long u64;
typedef long s64;
typedef unsigned int u32;
typedef unsigned char u8;

#define KERNELS 10
static double a[24][24], b[24][24], c[24][24];
static float signal_re[128], signal_im[128];
static u8 text[2048], copy[2048];
static short samples[512];
static u64 seed;

static u64 random(void) { seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17; return seed; }
static double uniform(void) { return (double)(random() >> 11) * 0x1p-53; }
static u64 bits(double d) { u64 v; __builtin_memcpy(&v, &d, 8); return v; }
static u64 mix(u64 h, u64 v) { h = (h ^ v) * 0x9e3779b97f4a7c15ul; return h ^ h >> 32; }

static u64 matrix(void) {
  for (int i = 0; i < 24; i++) for (int j = 0; j < 24; j++) { a[i][j] = uniform() - 0.5; b[i][j] = 1 / (1 + uniform()); c[i][j] = 0; }
  for (int i = 0; i < 24; i++) for (int j = 0; j < 24; j++) for (int k = 0; k < 24; k++) c[i][j] += a[i][k] * b[k][j];
  u64 h = 0;
  for (int i = 0; i < 24; i++) for (int j = 0; j < 24; j++) h = mix(h, bits(c[i][j]));
  return h;
}

static double sine(double x) { double x2 = x * x; return x * (1 + x2 * (-1 / 6.0 + x2 * (1 / 120.0 + x2 * (-1 / 5040.0 + x2 / 362880)))); }

// A radix-2 transform of 128 singles.
static u64 fourier(void) {
  for (int i = 0; i < 128; i++) { signal_re[i] = uniform(); signal_im[i] = 0; }
  for (int half = 64; half >= 1; half /= 2)
    for (int start = 0; start < 128; start += 2 * half)
      for (int k = 0; k < half; k++) {
        double angle = -1.5707963267948966 * k / half;
        double s = 2 * sine(angle) * sine(angle / 1 + 1.5707963267948966), co = 1 - 2 * sine(angle) * sine(angle);
        float wr = co, wi = s;
        float xr = signal_re[start + k], xi = signal_im[start + k], yr = signal_re[start + k + half], yi = signal_im[start + k + half];
        signal_re[start + k] = xr + yr; signal_im[start + k] = xi + yi;
        signal_re[start + k + half] = (xr - yr) * wr - (xi - yi) * wi; signal_im[start + k + half] = (xr - yr) * wi + (xi - yi) * wr;
      }
  u64 h = 0;
  for (int i = 0; i < 128; i++) h = mix(h, bits(signal_re[i] + 1e3 * signal_im[i]));
  return h;
}

// strlen as C libraries have it: sixteen bytes at a time, the comparison narrowed to a nibble a byte.
static u64 __attribute__((noinline)) length(const u8 *s) {
  const u8 *p = (const u8 *)((u64)s & -16ul);
  u64 m = vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(vceqzq_u8(vld1q_u8(p))), 4)), 0) >> ((u64)s & 15) * 4;
  if (m) return __builtin_ctzl(m) / 4;
  for (;;) {
    p += 16;
    uint8x16_t eq = vceqzq_u8(vld1q_u8(p));
    if (vgetq_lane_u64(vreinterpretq_u64_u8(vpmaxq_u8(eq, eq)), 0)) {
      m = vget_lane_u64(vreinterpret_u64_u8(vshrn_n_u16(vreinterpretq_u16_u8(eq), 4)), 0);
      return p - s + __builtin_ctzl(m) / 4;
    }
  }
}
static void __attribute__((noinline)) move(u8 *to, const u8 *from, u64 n) {
  u64 i = 0;
  for (; i + 64 <= n; i += 64) { uint8x16x4_t v = vld1q_u8_x4(from + i); vst1q_u8_x4(to + i, v); }
  for (; i + 16 <= n; i += 16) vst1q_u8(to + i, vld1q_u8(from + i));
  if (n >= 16) vst1q_u8(to + n - 16, vld1q_u8(from + n - 16));
  else for (; i < n; i++) to[i] = from[i];
}
static u64 strings(void) {
  u64 h = 0;
  for (int k = 0; k < 12; k++) {
    u64 start = random() % 100, n = random() % 1500;
    for (u64 i = 0; i < n; i++) text[start + i] = 1 + random() % 255;
    text[start + n] = 0;
    u64 len = length(text + start);
    move(copy + start / 2, text + start, len + 1);
    h = mix(h, len ^ length(copy + start / 2) << 20);
  }
  for (int i = 0; i < 2048; i++) h = mix(h, copy[i]);
  return h;
}

static double power(int n) { u64 v = (u64)(1023 + n) << 52; double d; __builtin_memcpy(&d, &v, 8); return d; }

// Seventeen digits of doubles and back: what printf("%.17g") and strtod need, in double arithmetic and 128-bit integers.
static u64 digits(void) {
  u64 h = 0;
  for (int k = 0; k < 60; k++) {
    double v = (uniform() - 0.5) * power((int)(random() % 120) - 60), w = v < 0 ? -v : v;
    int e = 0;
    while (w >= 10) { w /= 10; e++; }
    while (w < 1 && w > 0) { w *= 10; e--; }
    u64 m = (u64)(w * 1e16);
    u8 out[24]; int n = 0;
    for (u64 t = m; t; t /= 10) out[n++] = '0' + t % 10;
    double back = 0;
    while (n > 0) back = back * 10 + (out[--n] - '0');
    for (; e > 16; e--) back *= 10;
    for (; e < 16; e++) back /= 10;
    h = mix(h, bits(back) ^ m);
  }
  return h;
}

// Sums that gcc turns into widening multiplications and pairwise additions.
static u64 dot(void) {
  for (int i = 0; i < 512; i++) samples[i] = random();
  s64 energy = 0; int peak = 0; u32 absolute = 0;
  for (int i = 0; i < 512; i++) energy += samples[i] * samples[i];
  for (int i = 0; i < 512; i++) { int v = samples[i]; v = v < 0 ? -v : v; if (v > peak) peak = v; absolute += v; }
  return energy * 31 + peak + ((u64)absolute << 32);
}

static u64 saturate(void) {
  u64 h = 0;
  for (int k = 0; k < 512; k += 8) {
    int16x8_t x = vld1q_s16(samples + k), y = vrev64q_s16(x);
    int16x8_t s = vqaddq_s16(x, y), m = vqrdmulhq_s16(x, y), t = vqrshlq_s16(x, vshrq_n_s16(y, 11));
    uint8x8_t n = vqshrun_n_s16(s, 5);
    int32x4_t w = vqdmlal_s16(vmovl_s16(vget_low_s16(m)), vget_high_s16(t), vget_low_s16(x));
    h = mix(h, vget_lane_u64(vreinterpret_u64_u8(n), 0));
    h = mix(h, vaddvq_s16(m) ^ (u64)vaddlvq_s16(t) << 32);
    h = mix(h, vgetq_lane_s64(vreinterpretq_s64_s32(w), 0) ^ vgetq_lane_s64(vreinterpretq_s64_s32(w), 1));
  }
  return h;
}

// Mandelbrot iterations in singles, four points at a time.
static u64 mandelbrot(void) {
  u64 h = 0;
  for (int y = 0; y < 8; y++)
    for (int x = 0; x < 8; x += 4) {
      float32x4_t cr = { x, x + 1, x + 2, x + 3 }, ci = vdupq_n_f32(y / 6.0f - 1);
      cr = vsubq_f32(vdivq_f32(cr, vdupq_n_f32(5)), vdupq_n_f32(1.75f));
      float32x4_t zr = vdupq_n_f32(0), zi = zr; uint32x4_t count = vdupq_n_u32(0);
      for (int k = 0; k < 24; k++) {
        float32x4_t r2 = vmulq_f32(zr, zr), i2 = vmulq_f32(zi, zi);
        uint32x4_t in = vcltq_f32(vaddq_f32(r2, i2), vdupq_n_f32(4));
        if (!vmaxvq_u32(in)) break;
        count = vsubq_u32(count, in);
        zi = vfmaq_f32(ci, vmulq_n_f32(zr, 2), zi); zr = vaddq_f32(vsubq_f32(r2, i2), cr);
      }
      h = mix(h, vaddlvq_u32(count) ^ bits(vgetq_lane_f32(zr, 1)));
    }
  return h;
}

// Exponential and logarithm as mathematical libraries compute them: reduction, polynomial, bits of the exponent.
static double exponential(double x) {
  double n = __builtin_rint(x * 1.4426950408889634), r = __builtin_fma(-n, 0.6931471805599453, x), p = 1;
  for (int k = 14; k > 0; k--) p = 1 + p * r / k;
  return p * power((int)n);
}
static u64 functions(void) {
  u64 h = 0;
  for (int k = 0; k < 60; k++) {
    double x = uniform() * 40 - 20, y = exponential(x), r = __builtin_sqrt(y), g = 1;
    for (int i = 0; i < 6; i++) g = 0.5 * (g + y / g);
    h = mix(h, bits(y)); h = mix(h, bits(r)); h = mix(h, bits(g));
    h = mix(h, (u64)(s64)__builtin_floor(x * 1000) ^ (u32)(s64)__builtin_ceil(x) ^ (u64)__builtin_lround(y * 0.001) << 7);
    h = mix(h, bits((float)x) ^ bits(__builtin_fmax(x, r)) ^ bits(__builtin_copysign(y, x)));
  }
  return h;
}

// Interleaved structures: swapping channels of pixels, transposing 4 by 4.
static u64 pixels(void) {
  for (int i = 0; i < 2048; i++) text[i] = random();
  for (int i = 0; i + 48 <= 1536; i += 48) { uint8x16x3_t p = vld3q_u8(text + i); uint8x16_t t = p.val[0]; p.val[0] = p.val[2]; p.val[2] = vhaddq_u8(t, p.val[1]); vst3q_u8(text + i, p); }
  for (int i = 0; i + 64 <= 2048; i += 64) { uint32x4x4_t q = vld4q_u32((u32 *)(text + i)); vst1q_u32_x4((u32 *)(copy + i), q); }
  const uint8x16_t index = { 15, 14, 13, 200, 11, 10, 17, 8, 7, 6, 31, 4, 3, 2, 1, 0 };
  u64 h = 0;
  for (int i = 0; i < 2048; i += 32) {
    uint8x16x2_t t = vld1q_u8_x2(copy + i); uint8x16_t r = vqtbx2q_u8(t.val[0], t, index);
    r = vextq_u8(r, vzip1q_u8(t.val[0], t.val[1]), 5); r = veorq_u8(vcntq_u8(r), vrbitq_u8(vtrn2q_u8(r, t.val[1])));
    h = mix(h, vgetq_lane_u64(vreinterpretq_u64_u8(r), 0)); h = mix(h, vgetq_lane_u64(vreinterpretq_u64_u8(r), 1));
  }
  return h;
}

// Sorting doubles, and conversions of every width.
static u64 order(void) {
  double v[64]; u64 h = 0;
  for (int i = 0; i < 64; i++) v[i] = (double)(s64)random() / (float)(1 + (u32)random() % 1000);
  for (int i = 1; i < 64; i++) { double t = v[i]; int j = i; for (; j > 0 && v[j - 1] > t; j--) v[j] = v[j - 1]; v[j] = t; }
  for (int i = 0; i < 64; i++) h = mix(h, (u64)(s64)v[i] + (u64)(v[i] < 0 ? -v[i] : v[i]) + (int)(float)(v[i] * 1e-12) + bits((float)v[i]));
  return h;
}

u64 kernel(u64 n) {
  seed = 0x123456789abcdef1ul + n;
  switch (n) {
    case 0: return matrix();
    case 1: return fourier();
    case 2: return strings();
    case 3: return digits();
    case 4: return dot();
    case 5: dot(); return saturate();
    case 6: return mandelbrot();
    case 7: return functions();
    case 8: return pixels();
    default: return order();
  }
}

// gcc may turn loops into these, but not these into themselves.
#pragma GCC optimize("no-tree-loop-distribute-patterns")
void *memset(void *d, int v, unsigned long n) { for (u8 *p = d; n; n--) *p++ = v; return d; }
void *memcpy(void *d, const void *s, unsigned long n) { u8 *p = d; for (const u8 *q = s; n; n--) *p++ = *q++; return d; }

#ifdef NATIVE
static long call(long n, long x, long y, long z) {
  register long x8 asm("x8") = n, x0 asm("x0") = x, x1 asm("x1") = y, x2 asm("x2") = z;
  asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
  return x0;
}
void start(void) {
  for (u64 n = 0; n < KERNELS; n++) {
    u64 v = kernel(n); char line[17];
    for (int i = 0; i < 16; i++) line[i] = "0123456789abcdef"[v >> (60 - 4 * i) & 15];
    line[16] = '\n';
    call(64, 1, (long)line, 17);
  }
  call(94, 0, 0, 0);
}
asm(".globl _start\n_start: bl start\n");
#else
asm(".section .start, \"ax\"\n.globl _start\n_start: bl kernel\n brk #0\n.text\n");
#endif
