/* Boots, makes one process, serves its system calls. */
#include "kernel.h"

volatile uint64_t stats[STATS];
struct boot_info boot;
extern uint8_t process_image[], process_image_end[];
extern _Noreturn void enter_process(uint64_t pc, uint64_t sp);

/* The one process's substream: any but 0 would do. */
enum { PASID = 5 };
static int bound;

static void load_process(void)
{
	uint64_t bytes = (uint64_t)(process_image_end - process_image);
	for (uint64_t at = 0; at < bytes; at += PAGE) {
		uint64_t page = page_alloc();
		uint64_t n = bytes - at < PAGE ? bytes - at : PAGE;
		for (uint64_t i = 0; i < n; i++)
			((uint8_t *)va(page))[i] = process_image[at + i];
		map_page(PROCESS_BASE + at, page);
	}
	for (uint64_t i = 1; i <= STACK_PAGES; i++)
		map_page(STACK_TOP - i * PAGE, page_alloc());
	__asm__ volatile("dsb ish\n ic ialluis\n dsb ish\n isb" : : : "memory");
}

static int64_t sva_bind(void)
{
	if (bound)
		return -16;
	smmu_bind(PASID, process_root());
	bound = 1;
	return PASID;
}

static int64_t sva_unbind(void)
{
	if (!bound)
		return -22;
	engine_rings_close();
	smmu_unbind(PASID);
	bound = 0;
	return 0;
}

static int64_t unmap(uint64_t address)
{
	if (!unmap_page(address))
		return -22;
	if (bound)
		smmu_invalidate_page(PASID, address);
	return 0;
}

static int64_t wait_interrupts(uint64_t n)
{
	while (stats[STAT_INTERRUPTS] < n)
		cpu_wait();
	return (int64_t)stats[STAT_INTERRUPTS];
}

int64_t syscall(uint64_t number, uint64_t a, uint64_t b, uint64_t c)
{
	switch (number) {
	case SYS_PRINT:
		print_bytes((const char *)a, b);
		return 0;
	case SYS_EXIT:
		leave((uint32_t)a);
	case SYS_SVA_BIND:
		return sva_bind();
	case SYS_SVA_UNBIND:
		return sva_unbind();
	case SYS_RING_OPEN:
		return bound ? engine_ring_open((unsigned)a, PASID, b, c) : -22;
	case SYS_RING_TAIL:
		if (a >= ENGINES)
			return -22;
		engine_ring_tail((unsigned)a, (uint32_t)b);
		return 0;
	case SYS_WAIT:
		return wait_interrupts(a);
	case SYS_SLEEP:
		return (int64_t)cpu_sleep(a);
	case SYS_UNMAP:
		return unmap(a);
	case SYS_STAT:
		return a < STATS ? (int64_t)stats[a] : -22;
	}
	return -38;
}

void kernel_main(const struct boot_info *info)
{
	for (unsigned i = 0; i < sizeof boot / 8; i++)
		((uint64_t *)&boot)[i] = ((const uint64_t *)info)[i];
	if (boot.magic != BOOT_MAGIC)
		leave(0x81);
	memory_init();
	cpu_init();
	pci_init();
	gic_init();
	smmu_init();
	load_process();
	enter_process(PROCESS_BASE, STACK_TOP - 64);
}
