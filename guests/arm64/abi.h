/* What the kernel and the process of this guest agree on. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum {
	SYS_PRINT = 1,      /* (text, length) */
	SYS_EXIT = 2,       /* (code); 0 = everything verified */
	SYS_SVA_BIND = 3,   /* () -> PASID, or negative on refusal */
	SYS_SVA_UNBIND = 4, /* () -> 0 */
	SYS_RING_OPEN = 5,  /* (engine, address, log2 of descriptors): a ring of the process's own memory; 0 or negative */
	SYS_RING_TAIL = 6,  /* (engine, index): rings its doorbell */
	SYS_WAIT = 7,       /* (n): sleeps until the devices have interrupted n times; returns the count */
	SYS_SLEEP = 8,      /* (nanoseconds): sleeps; returns the ticks of the virtual counter that went by */
	SYS_UNMAP = 9,      /* (address): takes a lazy page away from the process and its devices; 0 or negative */
	SYS_STAT = 10,      /* (which) -> a counter of enum stat */
};

enum stat {
	STAT_PAGE_REQUESTS, /* page requests answered with success */
	STAT_STALLS,        /* stalled transactions that were resumed */
	STAT_REFUSED,       /* page requests and stalls for memory that the process does not have */
	STAT_CPU_FAULTS,    /* pages the CPU's own faults brought in */
	STAT_SMMU_FAULTS,   /* events that are no stalls */
	STAT_INTERRUPTS,    /* completion interrupts, by message through the ITS */
	STATS,
};

/* The two accelerators: one asks for missing pages itself (ATS and PRI), the other's accesses stall. */
enum { ENGINE_PRI, ENGINE_STALL, ENGINES };

/* The process's address space: its image, a stack, and a region that is mapped page by page on first use. */
#define PROCESS_BASE 0x7e0000000000ull
#define LAZY_BASE    0x7e1000000000ull
#define LAZY_PAGES   64
#define STACK_TOP    0x7effffff0000ull
#define STACK_PAGES  4
#define PAGE 4096ull
