/* Exceptions for the library's own tests: every way into the vector table that a guest has, and what handlers may change. */
#include "../../lib/arm64/processor.h"

/* The last frame a recording handler saw, and SP_EL0 at that time. */
struct ex_regs frame;
uint64_t frame_sp_el0, frame_address, handled;

void record(struct ex_regs *regs)
{
	frame = *regs;
	frame_sp_el0 = read_sysreg(sp_el0);
	frame_address = (uint64_t)(uintptr_t)regs;
	handled++;
}

/* Lets the instruction after the one at fault run. */
void record_and_skip(struct ex_regs *regs)
{
	record(regs);
	regs->pc += 4;
}

/* Changes what it may change. */
void change(struct ex_regs *regs)
{
	record(regs);
	regs->pc += 8;
	regs->pstate |= 1ull << 31;
	for (int i = 0; i < 31; i++)
		regs->regs[i] += 0x100;
	regs->sp = 0xbad;
}

/* Ends interrupts: the host has lowered the line. */
void record_interrupt(struct ex_regs *regs)
{
	record(regs);
	GUEST_SYNC(handled);
}

/* BRK at EL1 with SP_EL0 selected: slot 0. */
void from_sp0(void)
{
	asm volatile("msr spsel, #0\n\tbrk #1");
}

/* Everything at its place in the frame, and changes to it taken back. */
extern void frame_probe(uint64_t *after);
uint64_t probe_after[33], probe_sp;

void frame_contents(void)
{
	write_sysreg(0x1230, sp_el0);
	frame_probe(probe_after);
	GUEST_ASSERT_EQ(frame.sp, probe_sp);
	GUEST_ASSERT_EQ(frame_address, probe_sp - sizeof(frame));
	GUEST_ASSERT_EQ(frame_address % 16, 0);
	for (int i = 0; i < 30; i++) {
		GUEST_ASSERT_EQ(frame.regs[i], i == 29 ? 0x1d : (uint64_t)i);
		GUEST_ASSERT_EQ(probe_after[i], frame.regs[i] + 0x100);
	}
	/* NZCV after: N was set by the handler */
	GUEST_ASSERT_EQ(probe_after[31], 1ull << 31);
	GUEST_ASSERT_EQ(read_sysreg(sp_el0), 0x1230);
	GUEST_ASSERT_EQ(frame_sp_el0, 0x1230);
}

/* Runs `svc #n` at EL0, or what stands at `at`; EL0's stack is SP_EL0. */
extern void to_el0(uint64_t at, uint64_t stack);
extern char el0_svc[], el0_wait[];

void at_el0(uint64_t at)
{
	to_el0(at, 0x7770);
}

void svc_at_el0(void)
{
	at_el0((uint64_t)(uintptr_t)el0_svc);
}

/* Waits for an interrupt at EL1 or EL0 with everything unmasked. */
void wait_here(void)
{
	GUEST_SYNC(0);
	asm volatile("msr daifclr, #15\n1: b 1b");
}

void wait_at_el0(void)
{
	GUEST_SYNC(0);
	at_el0((uint64_t)(uintptr_t)el0_wait);
}

void undefined_instruction(void)
{
	asm volatile(".inst 0");
}

void failing_assertion(void)
{
	uint64_t two = 2;

	GUEST_ASSERT_EQ(two + 2, 5);
}

void read_nothing(void)
{
	*(volatile uint64_t *)0x7000000000 = 0;
}
