/*
 * What guest test programs of either architecture are written with: reports to the host (ucalls) and assertions.
 * A report is a struct ucall in guest memory, whose address goes out through one access that leaves the guest.
 * Exceptions: <arch>/processor.h. The host's side is src/testing/kvm.
 */
#pragma once
#include <stdint.h>

/* Kinds of reports; the numbers are in src/testing/kvm/ucall.ts too. */
enum {
	UCALL_NONE = 0,
	UCALL_SYNC = 1,      /* GUEST_SYNC: (values as the test likes) */
	UCALL_ABORT = 2,     /* an assertion failed: (text, file, line, number of values, values) */
	UCALL_DONE = 3,      /* GUEST_DONE */
	UCALL_UNHANDLED = 4, /* an exception without handler: (vector, class, whether the class is valid) */
};

#define UCALL_ARGS 8

struct ucall {
	uint64_t cmd;
	uint64_t args[UCALL_ARGS];
};

/* Tells the host and goes on when it lets us. */
void ucall(uint64_t cmd, unsigned int count, ...);

#define GUEST_SYNC(value)       ucall(UCALL_SYNC, 1, (uint64_t)(value))
#define GUEST_SYNC_2(a, b)      ucall(UCALL_SYNC, 2, (uint64_t)(a), (uint64_t)(b))
#define GUEST_DONE()            ucall(UCALL_DONE, 0)

/* Ends the test unless the condition holds. */
#define GUEST_ASSERT(condition)                                                                   \
	do {                                                                                      \
		if (!(condition))                                                                 \
			guest_abort("GUEST_ASSERT(" #condition ")", __FILE__, __LINE__, 0, 0, 0); \
	} while (0)

/* Ends the test unless two values are equal: the host prints both, and how the source wrote them. */
#define GUEST_ASSERT_EQ(a, b)                                                                     \
	do {                                                                                      \
		uint64_t a_ = (uint64_t)(a), b_ = (uint64_t)(b);                                  \
		if (a_ != b_)                                                                     \
			guest_abort("GUEST_ASSERT_EQ(" #a ", " #b ")", __FILE__, __LINE__, 2, a_, b_); \
	} while (0)

_Noreturn void guest_abort(const char *text, const char *file, unsigned int line, unsigned int count, uint64_t a,
			   uint64_t b);

/* Reports an exception that nobody handles and never returns into the code that had it. */
_Noreturn void report_unhandled(uint64_t vector, uint64_t class, uint64_t class_is_valid);

/* Stays where it is. */
_Noreturn void guest_spin(void);
