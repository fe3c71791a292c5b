/* The guest kernel's own interfaces, one block a file. */
#pragma once
#include "../abi.h"

struct boot_info { /* filled in by the VMM, address in RDI */
	uint64_t magic; /* "vfio-emu" */
	uint64_t ram_bytes;
	uint64_t ecam_base;
	uint64_t iommu_base;
};
#define BOOT_MAGIC 0x756d652d6f696676ull

struct trap_frame {
	uint64_t r15, r14, r13, r12, r11, r10, r9, r8, rdi, rsi, rbp, rbx, rdx, rcx, rax;
	uint64_t vector, error, rip, cs, rflags, rsp, ss;
};

enum { VECTOR_IOMMU_FAULT = 0x40, VECTOR_PAGE_REQUEST = 0x41, VECTOR_DEVICE = 0x50, VECTOR_SPURIOUS = 0xff };

/* io.c: console, exit, registers */
void print(const char *text);
void print_bytes(const char *text, uint64_t length);
void print_hex(uint64_t value);
_Noreturn void leave(uint32_t code);
_Noreturn void panic(const char *why, uint64_t value);
static inline uint32_t read32(uint64_t at) { return *(volatile uint32_t *)at; }
static inline uint64_t read64(uint64_t at) { return *(volatile uint64_t *)at; }
static inline void write32(uint64_t at, uint32_t v) { *(volatile uint32_t *)at = v; }
static inline void write64(uint64_t at, uint64_t v) { *(volatile uint64_t *)at = v; }
static inline void wrmsr(uint32_t msr, uint64_t v)
{
	__asm__ volatile("wrmsr" : : "c"(msr), "a"((uint32_t)v), "d"((uint32_t)(v >> 32)) : "memory");
}
static inline uint64_t rdmsr(uint32_t msr)
{
	uint32_t lo, hi;
	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return (uint64_t)hi << 32 | lo;
}

/* cpu.c: descriptor tables, traps, local APIC */
void cpu_init(void);
void cpu_eoi(void);

/* memory.c: pages and the process's page table */
void memory_init(uint64_t ram_bytes);
uint64_t page_alloc(void); /* a zeroed page's physical address */
uint64_t process_root(void);
void map_page(uint64_t va, uint64_t pa, uint64_t flags);
int map_on_demand(uint64_t va); /* 1: the page is there now; 0: no such memory in the process */
enum { PTE_P = 1, PTE_W = 2, PTE_U = 4, PTE_PCD = 16 };

/* pci.c: the one function this guest drives */
struct pci_device {
	uint64_t config; /* ECAM address of its configuration space */
	uint16_t bdf;
	uint64_t registers, portals; /* BAR 0 and BAR 4 */
	uint64_t msix_table;
};
extern struct pci_device device;
void pci_init(uint64_t ecam_base);

/* engine.c: the accelerator's work queues */
void engine_init(void);
int64_t engine_ring_open(uint32_t pasid, uint64_t address, uint64_t log2);
void engine_ring_tail(uint32_t index);
void engine_ring_close(void);

/* vtd.c: the (virtual) IOMMU */
void vtd_init(uint64_t base, uint16_t bdf);
int64_t vtd_pasid_alloc(void);
void vtd_pasid_free(uint32_t pasid);
void vtd_bind(uint32_t pasid, uint64_t root);
void vtd_unbind(uint32_t pasid);
void vtd_invalidate_page(uint32_t pasid, uint64_t va);
void vtd_page_requests(void);
void vtd_faults(void);

/* main.c */
extern uint64_t stats[8];
