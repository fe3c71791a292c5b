/* What the kernel and the process of this guest agree on. */
#pragma once
#include <stddef.h>
#include <stdint.h>

enum {
	SYS_PRINT = 1,      /* (text, length) */
	SYS_EXIT = 2,       /* (code); 0 = everything verified */
	SYS_SVA_BIND = 3,   /* () -> PASID, or negative on refusal */
	SYS_SVA_UNBIND = 4, /* () -> 0 */
	SYS_MAP_PORTAL = 5, /* () -> address of the portal page of the shared work queue */
	SYS_WAIT = 6,       /* (n): sleeps until the device has interrupted n times; returns the count */
	SYS_STAT = 7,       /* (which) -> a counter of enum stat */
	SYS_RING_OPEN = 8,  /* (address, log2 of descriptors): a ring of the process's own memory; 0 or negative */
	SYS_RING_TAIL = 9,  /* (index): rings its doorbell */
};

enum stat {
	STAT_PAGE_REQUESTS, /* page requests answered with success */
	STAT_REFUSED,       /* page requests answered with invalid */
	STAT_CPU_FAULTS,    /* pages the CPU's own page faults brought in */
	STAT_IOMMU_FAULTS,  /* unrecoverable faults the IOMMU reported */
	STAT_INTERRUPTS,    /* completion interrupts */
};

/* The process's address space: its image, a stack, and a region that is mapped page by page on first use. */
#define PROCESS_BASE 0x7e0000000000ull
#define LAZY_BASE    0x7e1000000000ull
#define LAZY_PAGES   64
#define STACK_TOP    0x7effffff0000ull
#define STACK_PAGES  4
#define PORTAL_BASE  0x7e2000000000ull
#define PAGE 4096ull
