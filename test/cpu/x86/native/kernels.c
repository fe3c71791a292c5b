// Small programs whose results must be the same here and on the host's processor: gcc's own choice of instructions.
// `kernel(n)` for n from 0 to KERNELS - 1. NATIVE builds a program that prints the results; otherwise the image starts
// with a call of kernel(RDI) and a HLT.
typedef unsigned long u64;
typedef long s64;
typedef unsigned int u32;
typedef int s32;
typedef unsigned short u16;
typedef unsigned char u8;
typedef unsigned __int128 u128;

#define KERNELS 8
static u32 table[256];
static u8 bytes[1024];
static u64 words[256];
static u64 seed;

static u64 random(void) { seed ^= seed << 13; seed ^= seed >> 7; seed ^= seed << 17; return seed; }

static u64 crc(void) {
  for (u32 i = 0; i < 256; i++) { u32 c = i; for (int k = 0; k < 8; k++) c = c & 1 ? (c >> 1) ^ 0xedb88320u : c >> 1; table[i] = c; }
  u32 c = ~0u;
  for (int i = 0; i < 1024; i++) c = table[(c ^ bytes[i]) & 255] ^ (c >> 8);
  return c;
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

static u64 __attribute__((noinline)) fib(u64 n) { return n < 2 ? n : fib(n - 1) + fib(n - 2); }

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
  for (int i = 0; i < 256; i++) { a = a * words[i] + b; b ^= a << (i & 31); b += (u128)words[i] * words[255 - i]; a -= b >> 3; }
  return (u64)(a >> 64) ^ (u64)a ^ (u64)b;
}

static u64 text(void) {
  u8 copy[200];
  __builtin_memset(copy, 0x5a, sizeof copy);
  __builtin_memcpy(copy + 3, bytes + 5, 150);
  u64 r = 0;
  for (int i = 0; i < 200; i++) {
    s32 c = (signed char)copy[i];
    switch (c & 15) {
    case 0: r += c; break;
    case 1: r ^= (u64)c << 20; break;
    case 2: r = (r << 7) | (r >> 57); break;
    case 3: r -= (u16)c * 77u; break;
    case 4: r = ~r; break;
    case 5: r += __builtin_popcountl(r); break;
    case 6: r ^= __builtin_bswap64(r + c); break;
    case 7: r += c < 0 ? 11 : 13; break;
    case 8: r *= 0x9e3779b97f4a7c15ul; break;
    default: r += (u64)(s64)(c * (s32)r); break;
    }
  }
  return r;
}

static u64 bits(void) {
  u64 r = 0;
  for (int i = 0; i < 256; i++) {
    u64 v = words[i];
    r += __builtin_ctzl(v | 1ul << 40) + __builtin_clzl(v | 1);
    r = (r >> (v & 63)) | (r << (-v & 63));
    r ^= (u32)((s32)v >> (i & 31)) + (u16)(v >> 3) + (u64)((s64)v >> (i & 63));
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

u64 kernel(u64 n) {
  seed = 88172645463325252ul + n;
  for (int i = 0; i < 256; i++) words[i] = random();
  for (int i = 0; i < 1024; i++) bytes[i] = random() >> 11;
  switch (n) {
  case 0: return crc();
  case 1: return sort();
  case 2: return fib(12);
  case 3: return division();
  case 4: return wide();
  case 5: return text();
  case 6: return bits();
  default: return atomics();
  }
}

#ifdef NATIVE
int printf(const char *, ...);
int main(void) { for (u64 n = 0; n < KERNELS; n++) printf("%016lx\n", kernel(n)); return 0; }
#else
__attribute__((section(".start"), naked)) void start(void) { __asm__("call kernel; hlt"); }
#endif
