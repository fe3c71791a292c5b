/* Boots, makes one process, serves its system calls. */
#include "kernel.h"

uint64_t stats[8];
extern uint8_t process_image[], process_image_end[];
extern _Noreturn void enter_process(uint64_t rip, uint64_t rsp);
enum { MSR_IA32_PASID = 0xd93 };

static int64_t pasid = -1;

static void load_process(void)
{
	uint64_t bytes = (uint64_t)(process_image_end - process_image);
	for (uint64_t at = 0; at < bytes; at += PAGE) {
		uint64_t pa = page_alloc();
		uint64_t n = bytes - at < PAGE ? bytes - at : PAGE;
		for (uint64_t i = 0; i < n; i++)
			((uint8_t *)pa)[i] = process_image[at + i];
		map_page(PROCESS_BASE + at, pa, PTE_W | PTE_U);
	}
	for (uint64_t i = 1; i <= STACK_PAGES; i++)
		map_page(STACK_TOP - i * PAGE, page_alloc(), PTE_W | PTE_U);
}

static int64_t sva_bind(void)
{
	if (pasid >= 0)
		return -16;
	pasid = vtd_pasid_alloc();
	if (pasid < 0)
		return pasid;
	vtd_bind((uint32_t)pasid, process_root());
	wrmsr(MSR_IA32_PASID, 1u << 31 | (uint64_t)pasid);
	return pasid;
}

static int64_t sva_unbind(void)
{
	if (pasid < 0)
		return -22;
	wrmsr(MSR_IA32_PASID, 0);
	engine_ring_close();
	vtd_unbind((uint32_t)pasid);
	vtd_pasid_free((uint32_t)pasid);
	pasid = -1;
	return 0;
}

static int64_t wait_interrupts(uint64_t n)
{
	volatile uint64_t *count = &stats[STAT_INTERRUPTS];
	while (*count < n)
		__asm__ volatile("sti; hlt; cli" : : : "memory");
	return (int64_t)*count;
}

int64_t syscall(uint64_t number, uint64_t a, uint64_t b)
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
	case SYS_MAP_PORTAL:
		map_page(PORTAL_BASE, device.portals, PTE_W | PTE_U | PTE_PCD);
		return (int64_t)PORTAL_BASE;
	case SYS_WAIT:
		return wait_interrupts(a);
	case SYS_STAT:
		return a < 8 ? (int64_t)stats[a] : -22;
	case SYS_RING_OPEN:
		return pasid < 0 ? -22 : engine_ring_open((uint32_t)pasid, a, b);
	case SYS_RING_TAIL:
		engine_ring_tail((uint32_t)a);
		return 0;
	}
	return -38;
}

void kernel_main(struct boot_info *info)
{
	if (info->magic != BOOT_MAGIC)
		panic("no boot information at", (uint64_t)info);
	memory_init(info->ram_bytes);
	cpu_init();
	pci_init(info->ecam_base);
	vtd_init(info->iommu_base, device.bdf);
	engine_init();
	load_process();
	enter_process(PROCESS_BASE, STACK_TOP - 64);
}
