/* Finding handlers, and the access that a report leaves by. */
#include "processor.h"

/* Set by the host: handlers by vector. */
handler_fn (*exception_handlers)[VECTOR_COUNT];

/* A port that nobody has; the report's address is in RDI. */
#define UCALL_PORT 0x1000

void ucall_leave(const struct ucall *report)
{
	asm volatile("outl %%eax, %%dx" ::"a"(0), "d"(UCALL_PORT), "D"(report) : "memory");
}

void route_exception(struct ex_regs *regs)
{
	handler_fn handler = exception_handlers ? (*exception_handlers)[regs->vector] : 0;

	if (!handler)
		report_unhandled(regs->vector, 0, 0);
	handler(regs);
}
