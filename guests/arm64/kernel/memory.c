/* Physical pages and the one process's page table (TTBR0). The kernel's own half is the linear map of boot.S. */
#include "kernel.h"

enum { VALID = 1, TABLE = 2, USER = 1 << 6, INNER = 3 << 8, AF = 1 << 10, NG = 1 << 11 };
#define PXN (1ull << 53)
#define ADDRESS 0xfffffffff000ull

extern uint8_t kernel_end[];
static uint64_t next_page, last_page, root;

static uint64_t *table(uint64_t at) { return (uint64_t *)va(at); }

void memory_init(void)
{
	next_page = pa(kernel_end);
	last_page = boot.ram_base + boot.ram_bytes;
	root = page_alloc();
	sysreg_write(ttbr0_el1, (uint64_t)PROCESS_ASID << 48 | root);
	isb();
	__asm__ volatile("tlbi vmalle1\n dsb nsh\n isb" : : : "memory");
}

uint64_t pages_alloc(uint64_t bytes, uint64_t align)
{
	uint64_t at = (next_page + align - 1) & ~(align - 1);
	if (at + bytes > last_page)
		panic("out of memory at", at);
	next_page = at + bytes;
	for (uint64_t i = 0; i < bytes / 8; i++)
		table(at)[i] = 0;
	return at;
}

uint64_t page_alloc(void) { return pages_alloc(PAGE, PAGE); }

uint64_t process_root(void) { return root; }

static uint64_t *leaf(uint64_t address, int make)
{
	uint64_t at = root;
	for (int shift = 39; shift > 12; shift -= 9) {
		uint64_t *entry = &table(at)[address >> shift & 511];
		if (!(*entry & VALID)) {
			if (!make)
				return 0;
			*entry = page_alloc() | TABLE | VALID;
		}
		at = *entry & ADDRESS;
	}
	return &table(at)[address >> 12 & 511];
}

void map_page(uint64_t address, uint64_t page)
{
	*leaf(address, 1) = page | PXN | NG | AF | INNER | USER | TABLE | VALID;
	__asm__ volatile("dsb ishst\n isb" : : : "memory");
}

int map_on_demand(uint64_t address)
{
	if (address < LAZY_BASE || address >= LAZY_BASE + LAZY_PAGES * PAGE)
		return 0;
	uint64_t *entry = leaf(address, 1);
	if (!(*entry & VALID))
		map_page(address & ~(PAGE - 1), page_alloc());
	return 1;
}

int unmap_page(uint64_t address)
{
	uint64_t *entry = leaf(address, 0);
	if (address < LAZY_BASE || address >= LAZY_BASE + LAZY_PAGES * PAGE || !entry || !(*entry & VALID))
		return 0;
	*entry = 0;
	uint64_t operand = (uint64_t)PROCESS_ASID << 48 | (address >> 12 & 0xfffffffffffull);
	__asm__ volatile("dsb ishst\n tlbi vae1is, %0\n dsb ish\n isb" : : "r"(operand) : "memory");
	return 1;
}
