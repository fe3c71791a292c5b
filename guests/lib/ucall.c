/* Reports to the host, on any architecture: ucall_leave is the architecture's. */
#include <stdarg.h>
#include "guest.h"

/* Makes the one access that leaves the guest with the address of a report. */
void ucall_leave(const struct ucall *report);

void ucall(uint64_t cmd, unsigned int count, ...)
{
	struct ucall report = { .cmd = cmd };
	va_list values;

	va_start(values, count);
	for (unsigned int i = 0; i < count && i < UCALL_ARGS; i++)
		report.args[i] = va_arg(values, uint64_t);
	va_end(values);
	ucall_leave(&report);
}

_Noreturn void guest_spin(void)
{
	for (;;)
		;
}

_Noreturn void guest_abort(const char *text, const char *file, unsigned int line, unsigned int count, uint64_t a,
			   uint64_t b)
{
	ucall(UCALL_ABORT, 6, (uint64_t)(uintptr_t)text, (uint64_t)(uintptr_t)file, (uint64_t)line,
	      (uint64_t)count, a, b);
	guest_spin();
}

_Noreturn void report_unhandled(uint64_t vector, uint64_t class, uint64_t class_is_valid)
{
	ucall(UCALL_UNHANDLED, 3, vector, class, class_is_valid);
	guest_spin();
}
