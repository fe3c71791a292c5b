/*
 * A64 for guest tests: system registers by name, exception vectors and the frame that handlers see.
 * Handlers are installed by the host (vm_install_sync_handler, vm_install_exception_handler) before the guest runs.
 */
#pragma once
#include "../guest.h"

/* Registers at the moment of an exception, on the stack: 272 bytes, so that SP keeps its alignment. */
struct ex_regs {
	uint64_t regs[31];
	uint64_t sp;     /* SP_EL1 at that moment; for information, nothing is restored from it */
	uint64_t pc;     /* return address */
	uint64_t pstate; /* saved PSTATE */
};

#define VECTOR_COUNT   16
#define CLASS_COUNT    64

/* Slots of the vector table: four groups of synchronous, IRQ, FIQ, SError. */
enum {
	VECTOR_SYNC_CURRENT_SP0, VECTOR_IRQ_CURRENT_SP0, VECTOR_FIQ_CURRENT_SP0, VECTOR_ERROR_CURRENT_SP0,
	VECTOR_SYNC_CURRENT, VECTOR_IRQ_CURRENT, VECTOR_FIQ_CURRENT, VECTOR_ERROR_CURRENT,
	VECTOR_SYNC_LOWER_64, VECTOR_IRQ_LOWER_64, VECTOR_FIQ_LOWER_64, VECTOR_ERROR_LOWER_64,
	VECTOR_SYNC_LOWER_32, VECTOR_IRQ_LOWER_32, VECTOR_FIQ_LOWER_32, VECTOR_ERROR_LOWER_32,
};
#define VECTOR_IS_SYNC(vector) ((vector) % 4 == 0)

/* Exception classes. */
enum {
	ESR_EC_UNKNOWN = 0x00,
	ESR_EC_SVC64 = 0x15,
	ESR_EC_SYS64 = 0x18,
	ESR_EC_IABT = 0x21,
	ESR_EC_DABT = 0x25,
	ESR_EC_HW_BP_CURRENT = 0x31,
	ESR_EC_SSTEP_CURRENT = 0x33,
	ESR_EC_WP_CURRENT = 0x35,
	ESR_EC_BRK_INS = 0x3c,
};
#define ESR_EC_SHIFT 26
/* All classes: their count less one. */
#define ESR_EC_MASK  (CLASS_COUNT - 1)

#define SPSR_D  (1ull << 9)
#define SPSR_SS (1ull << 21)

typedef void (*handler_fn)(struct ex_regs *);

#define read_sysreg(name)                                              \
	({                                                             \
		uint64_t value_;                                       \
		asm volatile("mrs %0, " #name : "=r"(value_)::"memory"); \
		value_;                                                \
	})

/* A constant zero is written from XZR. */
#define write_sysreg(value, name)                                                        \
	do {                                                                             \
		asm volatile("msr " #name ", %x0" ::"rZ"((uint64_t)(value)) : "memory"); \
	} while (0)

static inline void isb(void)
{
	asm volatile("isb" ::: "memory");
}
