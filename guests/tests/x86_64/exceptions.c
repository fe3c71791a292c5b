/* Exceptions for the library's own tests. */
#include "../../lib/x86_64/processor.h"

struct ex_regs frame;
uint64_t handled;

void record(struct ex_regs *regs)
{
	frame = *regs;
	handled++;
}

/* Passes over the two bytes of UD2 and changes what a handler may change. */
void change(struct ex_regs *regs)
{
	record(regs);
	regs->rip += 2;
	regs->rbx += 0x100;
}

void undefined_instruction(void)
{
	asm volatile("ud2");
}

void read_nothing(void)
{
	*(volatile uint64_t *)0x700000000000 = 0;
}

void frame_contents(void)
{
	uint64_t rbx = 0xb, rip;

	asm volatile("lea 1f(%%rip), %1\n1: ud2" : "+b"(rbx), "=&r"(rip)::"memory");
	GUEST_ASSERT_EQ(handled, 1);
	GUEST_ASSERT_EQ(frame.rbx, 0xb);
	GUEST_ASSERT_EQ(rbx, 0x10b);
	GUEST_ASSERT_EQ(frame.rip, rip);
	GUEST_ASSERT_EQ(frame.error_code, 0);
	GUEST_SYNC(frame.vector);
}

void failing_assertion(void)
{
	uint64_t two = 2;

	GUEST_ASSERT_EQ(two + 2, 5);
}
