/* Finding handlers, and the access that a report leaves by. */
#include "processor.h"

/* Set by the host. Handlers by vector and class; those of interrupts and SError are under class 0. */
handler_fn (*exception_handlers)[VECTOR_COUNT][CLASS_COUNT];
/* Set by the host: a guest address where nothing is. */
volatile uint64_t *ucall_address;

void ucall_leave(const struct ucall *report)
{
	asm volatile("" ::: "memory");
	*ucall_address = (uint64_t)(uintptr_t)report;
}

void route_exception(struct ex_regs *regs, int vector)
{
	int class_is_valid = VECTOR_IS_SYNC(vector);
	uint64_t class = class_is_valid ? (read_sysreg(esr_el1) >> ESR_EC_SHIFT) & ESR_EC_MASK : 0;
	handler_fn handler = exception_handlers ? (*exception_handlers)[vector][class] : 0;

	if (!handler)
		report_unhandled(vector, class, class_is_valid);
	handler(regs);
}
