/*
 * Debug exceptions as a guest meets them: BRK, breakpoints, watchpoints, software step, links to contexts, priorities,
 * and the OS Lock in front of all of them. Functions are called by the host with the numbers to use.
 */
#include "../../lib/arm64/processor.h"

#define MDSCR_SS  (1ull << 0)
#define MDSCR_KDE (1ull << 13)
#define MDSCR_MDE (1ull << 15)

/* Control registers: enabled at EL1; all bytes of an instruction, or all eight of a doubleword for both directions. */
#define BCR_EL1       (1ull << 0 | 1ull << 1 | 0xfull << 5)
#define WCR_EL1       (1ull << 0 | 1ull << 1 | 3ull << 3 | 0xffull << 5)
#define BCR_LINKED(n) (1ull << 20 | (uint64_t)(n) << 16)
#define BCR_CONTEXT   (3ull << 20)
#define WCR_LINKED(n) (1ull << 20 | (uint64_t)(n) << 16)

#define EACH_BREAKPOINT(do) do(0) do(1) do(2) do(3) do(4) do(5)
#define EACH_WATCHPOINT(do) do(0) do(1) do(2) do(3)

#define WRITE_BREAKPOINT(n) case n: write_sysreg(value, dbgbvr##n##_el1); write_sysreg(control, dbgbcr##n##_el1); break;
#define WRITE_WATCHPOINT(n) case n: write_sysreg(value, dbgwvr##n##_el1); write_sysreg(control, dbgwcr##n##_el1); break;

static void set_breakpoint(int n, uint64_t value, uint64_t control)
{
	switch (n) { EACH_BREAKPOINT(WRITE_BREAKPOINT) }
}

static void set_watchpoint(int n, uint64_t value, uint64_t control)
{
	switch (n) { EACH_WATCHPOINT(WRITE_WATCHPOINT) }
}

/* What handlers saw. */
static volatile uint64_t brk_at, breakpoint_at, watchpoint_at, watched_data, svc_at, steps_at[4];
static volatile unsigned int steps;
static volatile uint64_t data;

void brk_handler(struct ex_regs *regs)
{
	brk_at = regs->pc;
	regs->pc += 4;
}

void breakpoint_handler(struct ex_regs *regs)
{
	breakpoint_at = regs->pc;
	regs->pstate |= SPSR_D;
}

void watchpoint_handler(struct ex_regs *regs)
{
	watchpoint_at = regs->pc;
	watched_data = read_sysreg(far_el1);
	regs->pstate |= SPSR_D;
}

void step_handler(struct ex_regs *regs)
{
	GUEST_ASSERT(steps < 4);
	steps_at[steps++] = regs->pc;
	regs->pstate |= SPSR_SS;
}

void svc_handler(struct ex_regs *regs)
{
	svc_at = regs->pc;
}

static void reset_debug(void)
{
	asm volatile("msr daifset, #8");
	write_sysreg(0, osdlr_el1);
	write_sysreg(0, oslar_el1);
	isb();
	write_sysreg(0, mdscr_el1);
	write_sysreg(0, contextidr_el1);
	for (int n = 0; n < 6; n++)
		set_breakpoint(n, 0, 0);
	for (int n = 0; n < 4; n++)
		set_watchpoint(n, 0, 0);
	isb();
	brk_at = breakpoint_at = watchpoint_at = watched_data = svc_at = 0;
	steps = 0;
	data = 0;
}

static void enable_monitors(void)
{
	asm volatile("msr daifclr, #8");
	write_sysreg(read_sysreg(mdscr_el1) | MDSCR_KDE | MDSCR_MDE, mdscr_el1);
	isb();
}

static void break_at(int n, const void *address)
{
	enable_monitors();
	set_breakpoint(n, (uint64_t)(uintptr_t)address, BCR_EL1);
	isb();
}

static void watch(int n, volatile void *address)
{
	enable_monitors();
	set_watchpoint(n, (uint64_t)(uintptr_t)address, WCR_EL1);
	isb();
}

static void break_in_context(int n, int context_n, const void *address, uint64_t context)
{
	enable_monitors();
	set_breakpoint(context_n, context, BCR_EL1 | BCR_CONTEXT);
	set_breakpoint(n, (uint64_t)(uintptr_t)address, BCR_EL1 | BCR_LINKED(context_n));
	isb();
}

static void watch_in_context(int n, int context_n, volatile void *address, uint64_t context)
{
	enable_monitors();
	set_breakpoint(context_n, context, BCR_EL1 | BCR_CONTEXT);
	set_watchpoint(n, (uint64_t)(uintptr_t)address, WCR_EL1 | WCR_LINKED(context_n));
	isb();
}

#define ADDRESS(label)                                                        \
	({                                                                    \
		uint64_t at_;                                                 \
		asm("adrp %0, " #label "\n\tadd %0, %0, :lo12:" #label : "=r"(at_)); \
		at_;                                                          \
	})

static void lock(int on)
{
	write_sysreg(on, oslar_el1);
	isb();
	GUEST_ASSERT_EQ((read_sysreg(oslsr_el1) >> 1) & 1, on);
}

/* Each case by itself, then under the lock, then with the lock open again. */
void debug_cases(int breakpoint, int watchpoint)
{
	/* BRK */
	reset_debug();
	asm volatile("sw_bp: brk #0");
	GUEST_ASSERT_EQ(brk_at, ADDRESS(sw_bp));

	/* A breakpoint */
	reset_debug();
	break_at(breakpoint, (void *)ADDRESS(hw_bp));
	asm volatile("hw_bp: nop");
	GUEST_ASSERT_EQ(breakpoint_at, ADDRESS(hw_bp));

	/* One on an SVC: the breakpoint first */
	reset_debug();
	break_at(breakpoint, (void *)ADDRESS(bp_svc));
	asm volatile("bp_svc: svc #0");
	GUEST_ASSERT_EQ(breakpoint_at, ADDRESS(bp_svc));
	GUEST_ASSERT_EQ(svc_at, ADDRESS(bp_svc) + 4);

	/* One on a BRK: the breakpoint first */
	reset_debug();
	break_at(breakpoint, (void *)ADDRESS(bp_brk));
	asm volatile("bp_brk: brk #0");
	GUEST_ASSERT_EQ(breakpoint_at, ADDRESS(bp_brk));
	GUEST_ASSERT_EQ(brk_at, ADDRESS(bp_brk));

	/* A watchpoint on a store, then on a load */
	reset_debug();
	watch(watchpoint, &data);
	data = 'x';
	GUEST_ASSERT_EQ(data, 'x');
	GUEST_ASSERT_EQ(watched_data, (uintptr_t)&data);
	reset_debug();
	data = 'y';
	watch(watchpoint, &data);
	GUEST_ASSERT_EQ(data, 'y');
	GUEST_ASSERT_EQ(watched_data, (uintptr_t)&data);

	/* Three instructions, stepped; the last ends it */
	reset_debug();
	asm volatile("msr daifclr, #8");
	write_sysreg(MDSCR_KDE | MDSCR_SS, mdscr_el1);
	asm volatile("isb\n"
		     "ss_start:\n"
		     "	mrs x0, esr_el1\n"
		     "	add x0, x0, #1\n"
		     "	msr daifset, #8\n" ::: "x0");
	GUEST_ASSERT_EQ(steps, 3);
	GUEST_ASSERT_EQ(steps_at[0], ADDRESS(ss_start));
	GUEST_ASSERT_EQ(steps_at[1], ADDRESS(ss_start) + 4);
	GUEST_ASSERT_EQ(steps_at[2], ADDRESS(ss_start) + 8);
}

static __attribute__((noipa)) void cases_under_lock(int on, int breakpoint, int watchpoint)
{
	reset_debug();
	lock(on);
	asm volatile("brk #0" ::: "memory");
	GUEST_ASSERT(brk_at != 0);

	reset_debug();
	lock(on);
	break_at(breakpoint, (void *)ADDRESS(lock_bp));
	asm volatile("lock_bp: nop");
	GUEST_ASSERT_EQ(breakpoint_at, on ? 0 : ADDRESS(lock_bp));

	reset_debug();
	lock(on);
	watch(watchpoint, &data);
	data = 'z';
	GUEST_ASSERT_EQ(data, 'z');
	GUEST_ASSERT_EQ(watched_data, on ? 0 : (uintptr_t)&data);
	GUEST_ASSERT_EQ(read_sysreg(mdscr_el1), MDSCR_KDE | MDSCR_MDE);

	reset_debug();
	lock(on);
	asm volatile("msr daifclr, #8");
	write_sysreg(MDSCR_KDE | MDSCR_SS, mdscr_el1);
	asm volatile("isb\n"
		     "lock_ss:\n"
		     "	mrs x0, esr_el1\n"
		     "	add x0, x0, #1\n"
		     "	msr daifset, #8\n" ::: "x0");
	GUEST_ASSERT_EQ(steps, on ? 0 : 3);
}

void lock_cases(int breakpoint, int watchpoint)
{
	cases_under_lock(1, breakpoint, watchpoint);
	cases_under_lock(0, breakpoint, watchpoint);
}

static __attribute__((noipa)) void at_linked_bp(void)
{
	asm volatile("linked_bp: nop");
}

/* A linked breakpoint and a linked watchpoint fire in their context and in no other. */
void linked_cases(int breakpoint, int watchpoint, int context_breakpoint)
{
	uint64_t ours = 0x5a5a1233, other = 0x5a5a1234;

	reset_debug();
	break_in_context(breakpoint, context_breakpoint, (void *)ADDRESS(linked_bp), ours);
	write_sysreg(other, contextidr_el1);
	isb();
	for (int i = 0; i < 2; i++) {
		at_linked_bp();
		GUEST_ASSERT_EQ(breakpoint_at, i == 0 ? 0 : ADDRESS(linked_bp));
		write_sysreg(ours, contextidr_el1);
		isb();
	}

	reset_debug();
	watch_in_context(watchpoint, context_breakpoint, &data, ours);
	write_sysreg(other, contextidr_el1);
	isb();
	data = 1;
	GUEST_ASSERT_EQ(watched_data, 0);
	write_sysreg(ours, contextidr_el1);
	isb();
	data = 2;
	GUEST_ASSERT_EQ(watched_data, (uintptr_t)&data);
	GUEST_ASSERT_EQ(data, 2);
}

/* For steps of the host: writes value registers and reads them back. */
void write_and_read_back(uint64_t rounds)
{
	reset_debug();
	GUEST_SYNC(0);
	for (uint64_t i = 0; i < rounds; i++) {
		uint64_t value = i << 2;

		write_sysreg(value, dbgbvr0_el1);
		write_sysreg(value + 4, dbgwvr0_el1);
		isb();
		GUEST_ASSERT_EQ(read_sysreg(dbgbvr0_el1), value);
		GUEST_ASSERT_EQ(read_sysreg(dbgwvr0_el1), value + 4);
	}
	GUEST_SYNC(1);
}

/* Completes unless it is stepped. */
void exclusive_increment(void)
{
	uint64_t value, failed;

	GUEST_SYNC(0);
	asm volatile("1:	ldxr %0, [%2]\n"
		     "	add %0, %0, #1\n"
		     "	stxr %w1, %0, [%2]\n"
		     "	cbnz %w1, 1b"
		     : "=&r"(value), "=&r"(failed)
		     : "r"(&data)
		     : "memory");
	GUEST_SYNC(1);
}
