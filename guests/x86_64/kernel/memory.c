/* Physical pages and the one process's page table. The kernel half of the table is the identity map. */
#include "kernel.h"

extern uint8_t kernel_end[];
static uint64_t next_page, last_page, root;

static uint64_t *table(uint64_t pa) { return (uint64_t *)pa; }

void memory_init(uint64_t ram_bytes)
{
	next_page = 0x1000000;
	last_page = ram_bytes;
	root = page_alloc();
	uint64_t pdpt = page_alloc();
	table(root)[0] = pdpt | PTE_P | PTE_W;
	for (uint64_t gb = 0; gb < 4; gb++) {
		uint64_t pd = page_alloc();
		table(pdpt)[gb] = pd | PTE_P | PTE_W;
		for (uint64_t i = 0; i < 512; i++)
			table(pd)[i] = (gb << 30 | i << 21) | PTE_P | PTE_W | 0x80;
	}
	__asm__ volatile("mov %0, %%cr3" : : "r"(root) : "memory");
}

uint64_t page_alloc(void)
{
	uint64_t pa = next_page;
	if (pa >= last_page)
		panic("out of memory at", pa);
	next_page += PAGE;
	for (int i = 0; i < 512; i++)
		table(pa)[i] = 0;
	return pa;
}

uint64_t process_root(void) { return root; }

void map_page(uint64_t va, uint64_t pa, uint64_t flags)
{
	uint64_t at = root;
	for (int shift = 39; shift > 12; shift -= 9) {
		uint64_t *entry = &table(at)[va >> shift & 511];
		if (!(*entry & PTE_P))
			*entry = page_alloc() | PTE_P | PTE_W | PTE_U;
		at = *entry & 0xffffffffff000ull;
	}
	table(at)[va >> 12 & 511] = pa | flags | PTE_P;
	__asm__ volatile("invlpg (%0)" : : "r"(va) : "memory");
}

int map_on_demand(uint64_t va)
{
	if (va < LAZY_BASE || va >= LAZY_BASE + LAZY_PAGES * PAGE)
		return 0;
	map_page(va & ~(PAGE - 1), page_alloc(), PTE_W | PTE_U);
	return 1;
}
