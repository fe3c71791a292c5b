/*
 * Random debug registers and a few instructions under them: which debug exceptions come, in which order, a line a case on
 * the UART. The OS Lock stays open, for QEMU lets debug exceptions through it. Runs on QEMU's virt machine and on the A64 core alike (main.ts); both must print the same.
 * Built by build.sh. `seed` and `cases` are patched in by whoever runs it.
 */
#include <stdint.h>

typedef uint64_t u64;

/* Patched; `granules` is translation.c's. */
volatile u64 seed = 1, cases = 16, granules = 1;

#define UART ((volatile uint32_t *)0x09000000)

static uint32_t state;

static uint32_t draw(uint32_t limit)
{
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return (uint32_t)(((u64)state * limit) >> 32);
}

static int one_in(uint32_t n)
{
	return draw(n) == 0;
}

static void print(const char *text)
{
	while (*text)
		*UART = (uint32_t)*text++;
}

static void field(const char *name, u64 value)
{
	int started = 0;

	print(name);
	for (int at = 60; at >= 0; at -= 4) {
		int digit = (int)(value >> at) & 15;

		if (digit || started || at == 0) {
			*UART = (uint32_t)"0123456789abcdef"[digit];
			started = 1;
		}
	}
}

#define sysreg(name, value) asm volatile("msr " #name ", %0" ::"r"((u64)(value)) : "memory")
#define get(name) ({ u64 v_; asm volatile("mrs %0, " #name : "=r"(v_)); v_; })

/* ---- memory: all for EL1; at 2 GB a page of stubs for both levels, and one of data ---- */

static u64 root[512] __attribute__((aligned(4096)));
static u64 level2[512] __attribute__((aligned(4096)));
static u64 level3[512] __attribute__((aligned(4096)));
static uint32_t code[1024] __attribute__((aligned(4096)));
static u64 data[512] __attribute__((aligned(4096)));

#define CODE 0x80000000ull
#define DATA 0x80001000ull

static void translate(void)
{
	root[0] = 0x405 | 1ull << 54 | 1ull << 53;       /* devices */
	root[1] = 0x40000000 | 0x701 | 1ull << 54;       /* RAM */
	root[2] = (u64)level2 | 3;
	level2[0] = (u64)level3 | 3;
	level3[0] = (u64)code | 0x703 | 3ull << 6;
	level3[1] = (u64)data | 0x703 | 1ull << 6 | 1ull << 53 | 1ull << 54;
	sysreg(mair_el1, 0x04ff);
	sysreg(tcr_el1, 25 | 1ull << 23 | 0x3500 | 2ull << 32);
	sysreg(ttbr0_el1, root);
	asm volatile("dsb sy\n\tisb\n\ttlbi vmalle1\n\tdsb sy\n\tisb" ::: "memory");
	sysreg(sctlr_el1, 0x30d00801 | 1 << 16 | 1 << 18);
	asm volatile("isb" ::: "memory");
}

/* ---- debug registers ---- */

#define EACH_BREAKPOINT(do) do(0) do(1) do(2) do(3) do(4) do(5)
#define EACH_WATCHPOINT(do) do(0) do(1) do(2) do(3)
#define BREAK(n) case n: sysreg(dbgbvr##n##_el1, value); sysreg(dbgbcr##n##_el1, control); break;
#define WATCH(n) case n: sysreg(dbgwvr##n##_el1, value); sysreg(dbgwcr##n##_el1, control); break;

static void set_breakpoint(int n, u64 value, u64 control)
{
	switch (n) { EACH_BREAKPOINT(BREAK) }
}

static void set_watchpoint(int n, u64 value, u64 control)
{
	switch (n) { EACH_WATCHPOINT(WATCH) }
}

static void clear_breakpoints(void)
{
	for (int n = 0; n < 6; n++)
		set_breakpoint(n, 0, 0);
}

static void clear_watchpoints(void)
{
	for (int n = 0; n < 4; n++)
		set_watchpoint(n, 0, 0);
}

/* HMC, SSC and privilege of both kinds, without the reserved combinations. */
static u64 draw_scope(void)
{
	u64 privilege = 1 + draw(3);

	if (one_in(8))
		return privilege << 1 | (u64)(1 + draw(2)) << 14;
	if (one_in(8))
		return (privilege | 1) << 1 | 1ull << 13;
	return privilege << 1;
}

#define CONTEXT 0x1234567
#define INSTRUCTIONS 6

static void draw_breakpoints(void)
{
	int context = 4 + (int)draw(2);

	for (int n = 0; n < 6; n++) {
		u64 control = draw_scope() | 0xfull << 5 | (u64)!one_in(6);
		u64 value = CODE + 4 * draw(INSTRUCTIONS + 2);

		if (n == context && one_in(2)) {
			control |= 3ull << 20;
			value = CONTEXT + (u64)one_in(3);
		} else if (one_in(3)) {
			control |= 1ull << 20 | (u64)(one_in(4) ? draw(6) : (uint32_t)context) << 16;
		}
		if (one_in(2))
			set_breakpoint(n, value, control);
	}
}

static void draw_watchpoint(void)
{
	u64 control = draw_scope() | (u64)(1 + draw(3)) << 3 | (u64)!one_in(6);
	u64 value = DATA + 64 + 4 * draw(4);

	if (one_in(3)) {
		control |= 0xffull << 5 | (u64)(3 + draw(5)) << 24;
	} else {
		uint32_t bytes = value & 4 ? 4 : 8, first = draw(bytes), count = 1 + draw(bytes - first);

		control |= ((1ull << count) - 1) << first << 5;
	}
	if (one_in(3))
		control |= 1ull << 20 | (u64)(4 + draw(2)) << 16;
	set_watchpoint((int)draw(4), value, control);
}

/* ---- instructions: X1 is an address in the data, X0 and X2 to X4 scratch ---- */

static const uint32_t some[] = {
	0xd503201f, /* nop */
	0x91000400, /* add x0, x0, #1 */
	0xf9400020, /* ldr x0, [x1] */
	0xf9000022, /* str x2, [x1] */
	0x39400420, /* ldrb w0, [x1, #1] */
	0x39000c22, /* strb w2, [x1, #3] */
	0xb9400420, /* ldr w0, [x1, #4] */
	0x79000022, /* strh w2, [x1] */
	0xc85f7c20, /* ldxr x0, [x1] */
	0xa9400c20, /* ldp x0, x3, [x1] */
	0xd4200020, /* brk #1 */
	0x00000000, /* udf */
	0xd50348df, /* msr daifset, #8: traps at EL0 */
	0xd50348ff, /* msr daifclr, #8 */
	0xf8400820, /* ldtr x0, [x1] */
	0xf8000822, /* sttr x2, [x1] */
};
#define SVC 0xd4000001
#define NOP 0xd503201f
#define DAIFSET 0xd50348df

/* QEMU steps out of an instruction that masks D; the architecture does not (D2.11.4). */
static void draw_code(u64 mdscr)
{
	for (int i = 0; i < INSTRUCTIONS; i++) {
		uint32_t word = some[draw(sizeof(some) / sizeof(*some))];

		code[i] = word == DAIFSET && (mdscr & 1) ? NOP : word;
	}
	for (int i = INSTRUCTIONS; i < INSTRUCTIONS + 4; i++)
		code[i] = SVC;
	asm volatile("dsb sy\n\tic ialluis\n\tdsb sy\n\tisb" ::: "memory");
}

/* ---- exceptions ---- */

/* debug-entry.S */
void enter(u64 pstate, u64 at, u64 data_at);
_Noreturn void leave(void);
extern char vectors[];

static int events;

void exception(u64 vector)
{
	u64 esr = get(esr_el1), elr = get(elr_el1), spsr = get(spsr_el1), class = esr >> 26;

	field(" | ", vector);
	/* QEMU has op1 and op2 of a trapped MSR (immediate) in each other's place. */
	field(" ", class == 0x18 ? 0x18 : esr);
	field(" +", elr - CODE);
	field(" ", spsr & (1ull << 21 | 0x3cf));
	if (class == 0x34 || class == 0x35)
		field(" far ", get(far_el1));
	switch (class) {
	case 0x30: case 0x31: clear_breakpoints(); break;
	case 0x34: case 0x35: clear_watchpoints(); break;
	case 0x32: case 0x33: spsr |= 1ull << 21; break;
	case 0x3c: case 0x00: case 0x18: elr += 4; break;
	default: leave();
	}
	if (++events == 16)
		leave();
	sysreg(elr_el1, elr);
	sysreg(spsr_el1, spsr);
}

void main(void)
{
	sysreg(vbar_el1, vectors);
	state = (uint32_t)seed * 0x9e3779b9u;
	if (state == 0)
		state = 1;
	translate();
	for (u64 i = 0; i < cases; i++) {
		u64 mdscr = (one_in(4) ? 0 : 1ull << 15) | (one_in(4) ? 0 : 1ull << 13) | (u64)one_in(3);
		u64 pstate = (one_in(2) ? 0 : 4 + draw(2)) | 0x1c0 | (one_in(3) ? 0x200 : 0) |
			     (u64)draw(2) << 21;

		asm volatile("msr daifset, #15" ::: "memory");
		sysreg(oslar_el1, 0);
		sysreg(mdscr_el1, 0);
		clear_breakpoints();
		clear_watchpoints();
		sysreg(contextidr_el1, CONTEXT + (u64)one_in(4));
		draw_code(mdscr);
		draw_breakpoints();
		draw_watchpoint();
		sysreg(mdscr_el1, mdscr);
		asm volatile("isb" ::: "memory");
		events = 0;
		field("", i);
		field(" pstate ", pstate);
		field(" mdscr ", mdscr);
		enter(pstate, CODE, DATA + 64 + 8 * draw(3));
		print("\n");
	}
	print("end\n");
}
