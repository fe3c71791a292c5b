/*
 * Every encoding of a system register, read at EL1 and EL0 and written at EL0: which are there, and which are trapped; a
 * line for each that is not UNDEFINED. Runs on QEMU's virt machine and on the A64 core alike (main.ts); both must print
 * the same. Left out is what one of the two does not have: the PMU, implementation defined registers, the timer's and the
 * GIC's (which other parts of a machine provide), DBGCLAIM, DBGPRCR and DBGAUTHSTATUS; RVBAR_EL1 and RMR_EL1, which a
 * processor without EL2 has and a guest of KVM has not.
 * Built by build.sh. `seed` (SCTLR_EL1, CNTKCTL_EL1 and MDSCR_EL1 follow it) is patched in by whoever runs it.
 */
#include <stdint.h>

typedef uint64_t u64;

/* Patched; `granules` is translation.c's, and all cases are run. */
volatile u64 seed = 1, cases = 1, granules = 1;

#define UART ((volatile uint32_t *)0x09000000)

static void print(const char *text)
{
	while (*text)
		*UART = (uint32_t)*text++;
}

static void print_hex(u64 value)
{
	if (value > 15)
		print_hex(value >> 4);
	*UART = (uint32_t)"0123456789abcdef"[value & 15];
}

#define sysreg(name, value) asm volatile("msr " #name ", %0" ::"r"((u64)(value)) : "memory")
#define get(name) ({ u64 v_; asm volatile("mrs %0, " #name : "=r"(v_)); v_; })

static u64 root[512] __attribute__((aligned(4096)));
static u64 level2[512] __attribute__((aligned(4096)));
static u64 level3[512] __attribute__((aligned(4096)));
static volatile uint32_t code[1024] __attribute__((aligned(4096)));

#define CODE 0x80000000ull

static void translate(void)
{
	root[0] = 0x405 | 1ull << 54 | 1ull << 53; /* devices */
	root[1] = 0x40000000 | 0x701 | 1ull << 54; /* RAM */
	root[2] = (u64)level2 | 3;
	level2[0] = (u64)level3 | 3;
	level3[0] = (u64)code | 0x703 | 3ull << 6; /* for EL0 too */
	sysreg(mair_el1, 0x04ff);
	sysreg(tcr_el1, 25 | 1ull << 23 | 0x3500 | 2ull << 32);
	sysreg(ttbr0_el1, root);
	asm volatile("dsb sy\n\tisb\n\ttlbi vmalle1\n\tdsb sy\n\tisb" ::: "memory");
	/* M; UMA and UCT with the seed */
	sysreg(sctlr_el1, 0x30d00801 | 1 << 16 | 1 << 18 | (seed & 1) << 9 | (seed & 2) << 14);
	sysreg(cpacr_el1, 3 << 20);
	asm volatile("isb" ::: "memory");
}

static int left_out(u64 op0, u64 op1, u64 crn, u64 crm, u64 op2)
{
	if (op0 == 2)
		return op1 == 0 && (crn == 7 || (crn == 1 && crm == 4));
	return crn == 9 || crn == 11 || crn == 15 || crn == 14 || (crn == 12 && (crm >= 8 || op2 > 0)) ||
	       (crn == 4 && crm == 6 && op1 == 0 && op2 == 0);
}

/* debug-entry.S */
void enter(u64 pstate, u64 at, u64 data_at);
_Noreturn void leave(void);
extern char vectors[];

static u64 class;

void exception(u64 vector)
{
	(void)vector;
	class = get(esr_el1) >> 26;
	leave();
}

static void access(const char *what, int read, u64 pstate, u64 key)
{
	u64 op0 = key >> 14 & 3, op1 = key >> 11 & 7, crn = key >> 7 & 15, crm = key >> 3 & 15, op2 = key & 7;

	if (left_out(op0, op1, crn, crm, op2))
		return;
	code[0] = 0xd5000000u | (uint32_t)read << 21 | (uint32_t)key << 5 | 3;
	code[1] = 0xd4000021u; /* svc #1 */
	asm volatile("dsb sy\n\tic ialluis\n\tdsb sy\n\tisb" ::: "memory");
	enter(pstate, CODE, 0);
	if (class == 0)
		return;
	print(what);
	for (u64 *field = (u64[]){ op0, op1, crn, crm, op2, ~0ull }; *field != ~0ull; field++) {
		print(" ");
		print_hex(*field);
	}
	print(class == 0x15 ? "" : ": class ");
	if (class != 0x15)
		print_hex(class);
	print("\n");
}

void main(void)
{
	sysreg(vbar_el1, vectors);
	translate();
	for (u64 key = 0x8000; key < 0x10000; key++)
		access("el1 reads", 1, 0x3c5, key);
	for (u64 key = 0x8000; key < 0x10000; key++)
		access("el0 reads", 1, 0x3c0, key);
	for (u64 key = 0x8000; key < 0x10000; key++)
		access("el0 writes", 0, 0x3c0, key);
	print("end\n");
}
