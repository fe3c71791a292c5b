/* The guest kernel's own interfaces, one block a file. */
#pragma once
#include "../abi.h"

struct boot_info { /* filled in by the VMM, physical address in X0 */
	uint64_t magic; /* "vfio-emu" */
	uint64_t ram_base, ram_bytes;
	uint64_t ecam_base;
	uint64_t smmu_base;
	uint64_t gicd_base, gicr_base, its_base;
	uint64_t console; /* +0 a byte of text, +8 the exit code */
	uint64_t stalling; /* requester id of the function whose accesses may stall */
};
#define BOOT_MAGIC 0x756d652d6f696676ull
extern struct boot_info boot;

struct trap_frame {
	uint64_t x[31], sp, pc, pstate, esr, far;
};

/* Physical memory and devices are mapped at their address plus this. */
#define LINEAR 0xffff000000000000ull
static inline uint64_t va(uint64_t pa) { return pa | LINEAR; }
static inline uint64_t pa(const void *p) { return (uint64_t)p & ~LINEAR; }

/* Interrupts: those of the SMMU are wired, those of the devices come by message through the ITS. */
enum { SPI_EVENTQ = 74, SPI_PRIQ = 75, SPI_GERROR = 77, PPI_VIRTUAL_TIMER = 27, FIRST_LPI = 8192 };
enum { DEVICE_VECTORS = 2 };

/* io.c: console, exit, registers */
void print(const char *text);
void print_bytes(const char *text, uint64_t length);
void print_hex(uint64_t value);
_Noreturn void leave(uint32_t code);
_Noreturn void panic(const char *why, uint64_t value);
/* One instruction of a plain form each, as a hypervisor needs it. `at` is a physical address. */
static inline uint32_t read32(uint64_t at)
{
	uint32_t v;
	__asm__ volatile("ldr %w0, [%1]" : "=r"(v) : "r"(va(at)) : "memory");
	return v;
}
static inline uint64_t read64(uint64_t at)
{
	uint64_t v;
	__asm__ volatile("ldr %0, [%1]" : "=r"(v) : "r"(va(at)) : "memory");
	return v;
}
static inline uint16_t read16(uint64_t at)
{
	uint32_t v;
	__asm__ volatile("ldrh %w0, [%1]" : "=r"(v) : "r"(va(at)) : "memory");
	return (uint16_t)v;
}
static inline void write32(uint64_t at, uint32_t v)
{
	__asm__ volatile("str %w0, [%1]" : : "r"(v), "r"(va(at)) : "memory");
}
static inline void write64(uint64_t at, uint64_t v)
{
	__asm__ volatile("str %0, [%1]" : : "r"(v), "r"(va(at)) : "memory");
}
static inline void write16(uint64_t at, uint16_t v)
{
	__asm__ volatile("strh %w0, [%1]" : : "r"((uint32_t)v), "r"(va(at)) : "memory");
}
static inline void write8(uint64_t at, uint8_t v)
{
	__asm__ volatile("strb %w0, [%1]" : : "r"((uint32_t)v), "r"(va(at)) : "memory");
}
/* What was written to memory is there before a device is told. */
static inline void publish(void) { __asm__ volatile("dsb sy" : : : "memory"); }

#define sysreg_read(name) ({ uint64_t v_; __asm__ volatile("mrs %0, " #name : "=r"(v_) : : "memory"); v_; })
#define sysreg_write(name, value) __asm__ volatile("msr " #name ", %0" : : "r"((uint64_t)(value)) : "memory")
static inline void isb(void) { __asm__ volatile("isb" : : : "memory"); }

/* cpu.c: exceptions, sleeping, the timer */
void cpu_init(void);
void cpu_wait(void); /* until an interrupt was handled */
uint64_t cpu_sleep(uint64_t ticks);

/* memory.c: pages and the process's page table */
void memory_init(void);
uint64_t page_alloc(void); /* a zeroed page's physical address */
uint64_t pages_alloc(uint64_t bytes, uint64_t align);
uint64_t process_root(void);
enum { PROCESS_ASID = 1 };
void map_page(uint64_t va, uint64_t pa);
int map_on_demand(uint64_t va); /* 1: the page is there now; 0: no such memory in the process */
int unmap_page(uint64_t va);

/* pci.c: the functions this guest drives */
struct pci_device {
	uint64_t config; /* ECAM address of its configuration space */
	uint16_t bdf;
	uint64_t registers; /* BAR 0 */
	uint64_t msix_table;
};
extern struct pci_device devices[ENGINES];
void pci_init(void);

/* engine.c: the accelerators' rings */
int64_t engine_ring_open(unsigned engine, uint32_t pasid, uint64_t address, uint64_t log2);
void engine_ring_tail(unsigned engine, uint32_t index);
void engine_rings_close(void);

/* gic.c: the interrupt controller and its translation service */
void gic_init(void);
uint32_t gic_acknowledge(void);
void gic_end(uint32_t intid);

/* smmu.c: the (virtual) IOMMU */
void smmu_init(void);
void smmu_bind(uint32_t pasid, uint64_t root);
void smmu_unbind(uint32_t pasid);
void smmu_invalidate_page(uint32_t pasid, uint64_t va);
void smmu_page_requests(void);
void smmu_events(void);
_Noreturn void smmu_error(void);

/* main.c */
extern volatile uint64_t stats[STATS];
