// What a C library does with floating point and SIMD: formatted output and input of numbers, mathematical functions,
// rounding modes and exceptions, string functions. Argument: how many rounds. Everything is printed, so that two
// runs can be compared. Linked statically with whatever C library the compiler has.
#define _GNU_SOURCE
#include <complex.h>
#include <fenv.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <wchar.h>

static unsigned long seed = 42;
static unsigned next(unsigned limit) { seed = seed * 6364136223846793005ul + 1442695040888963407ul; return (unsigned)(seed >> 33) % limit; }
static double number(int range) { return ((int)next(2000000001) - 1000000000) * pow(10, (int)next(2 * range) - range); }
static int compare(const void *a, const void *b) { double x = *(double *)a, y = *(double *)b; return (x > y) - (x < y); }

static void numbers(int rounds) {
  double v[64];
  for (int i = 0; i < 64; i++) v[i] = number(20);
  qsort(v, 64, sizeof *v, compare);
  for (int i = 0; i < 2 * rounds; i++) {
    double x = i < 64 ? v[i] : number(150);
    char text[64];
    printf("%.17g %a %f %e %Lg\n", x, x, x, x, (long double)x * 3);
    snprintf(text, sizeof text, "%.17g", x);
    printf("%d %.9g\n", strtod(text, 0) == x, strtof(text, 0));
  }
  const char *const texts[] = { "1e-320", "123456789.123456789e-5", "0x1.8p-3", "inf", "-nan", "4.9e-324", "2.2250738585072011e-308", "1e400" };
  for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++) printf("%a\n", strtod(texts[i], 0));
}

static void functions(int rounds) {
  for (int i = 0; i < rounds; i++) {
    double x = number(9) * 1e-9, y = fabs(x);
    printf("%a %a %a %a %a\n", sin(x), cos(x), tan(x), atan2(x, 2), exp(fmod(x, 700)));
    printf("%a %a %a %a %a\n", log(y), pow(y, 1.3), sqrt(y), cbrt(x), hypot(x, 3));
    printf("%a %a %a %a\n", tgamma(fmod(y, 100)), erf(x), fma(x, y, -x), remainder(x, 7));
    printf("%a %a %a %a\n", sinf(x), expf(fmodf(x, 80)), logf(y), powf(y, 0.7f));
    printf("%ld %ld %a %a %a %a\n", lrint(fmod(x, 1e18)), lround(fmod(x, 1e18)), rint(x), floor(x), ceil(x), trunc(x));
  }
  double complex z = cexp(1 + 2 * I) * csqrt(-3 + 4 * I);
  printf("%a %a\n", creal(z), cimag(z));
  const int modes[] = { FE_TONEAREST, FE_UPWARD, FE_DOWNWARD, FE_TOWARDZERO };
  for (int i = 0; i < 4; i++) {
    fesetround(modes[i]);
    feclearexcept(FE_ALL_EXCEPT);
    volatile double one = 1, three = 3, tiny = 1e-300;
    printf("%a %a %x %a\n", one / three, -tiny * tiny, (unsigned)fetestexcept(FE_ALL_EXCEPT), nearbyint(-2.5));
  }
  fesetround(FE_TONEAREST);
}

static void strings(int rounds) {
  static char in[4096], out[4096];
  unsigned long h = 0;
  memset(in, 'x', sizeof in - 1);
  for (int i = 0; i < 10 * rounds; i++) {
    unsigned n = next(2000), o = next(64);
    in[o + n] = 0;
    h = h * 31 + strlen(in + o);
    memcpy(out, in + o, n + 1);
    memmove(out + 3, out, n);
    h = h * 31 + (strcmp(out, in + o) > 0) + (size_t)(strchr(out, 0) - out);
    char *end = memchr(in, 0, sizeof in);
    h = h * 31 + (end ? (size_t)(end - in) : 1);
    in[o + n] = 'a' + i % 26;
    char *last = strrchr(out, 'x'), *pair = strstr(in, "ab");
    h = h * 31 + strnlen(in, 1000) + (last ? (size_t)(last - out) : 2) + (memcmp(in, out, 100) > 0);
    h = h * 31 + strspn(in, "xabc") + strcspn(out, "q") + (pair ? (size_t)(pair - in) : 3);
  }
  wchar_t wide[64];
  mbstowcs(wide, "wide characters", 64);
  printf("%lx %zu %ls\n", h, wcslen(wide), wide);
  char *block = malloc(300000);
  memset(block, 7, 300000);
  block = realloc(block, 900000);
  printf("%d\n", block[299999]);
  free(block);
}

int main(int argc, char **argv) {
  int rounds = argc > 1 ? atoi(argv[1]) : 10;
  numbers(rounds);
  functions(rounds);
  strings(rounds);
  return 7;
}
