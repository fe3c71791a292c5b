/* Descriptor tables, the trap dispatcher and the local APIC. */
#include "kernel.h"

struct gate {
	uint16_t offset_low, selector;
	uint8_t ist, type;
	uint16_t offset_mid;
	uint32_t offset_high, reserved;
} __attribute__((packed));

struct tss {
	uint32_t reserved0;
	uint64_t rsp[3], reserved1, ist[7], reserved2;
	uint16_t reserved3, iomap;
} __attribute__((packed));

struct table_register {
	uint16_t limit;
	uint64_t base;
} __attribute__((packed));

extern uint8_t trap_stubs[], kernel_stack_top[], fault_stack_top[];
extern void syscall_entry(void);

static struct gate idt[256];
static struct tss tss;
/* null, kernel code, kernel data, user code 32 (unused), user data, user code, TSS (two slots) */
static uint64_t gdt[8] = { 0, 0x00af9b000000ffff, 0x00cf93000000ffff, 0x00cffb000000ffff,
			   0x00cff3000000ffff, 0x00affb000000ffff };
enum { KERNEL_CS = 0x08, KERNEL_DS = 0x10, USER_BASE = 0x18, TSS_SELECTOR = 0x30, STUB_BYTES = 16 };
enum { MSR_STAR = 0xc0000081, MSR_LSTAR = 0xc0000082, MSR_SFMASK = 0xc0000084, MSR_EFER = 0xc0000080 };
#define LAPIC 0xfee00000ull

static void gate_set(int vector, uint64_t handler, int ist)
{
	idt[vector] = (struct gate){ (uint16_t)handler, KERNEL_CS, (uint8_t)ist, 0x8e,
				     (uint16_t)(handler >> 16), (uint32_t)(handler >> 32), 0 };
}

void cpu_init(void)
{
	uint64_t t = (uint64_t)&tss;
	tss.rsp[0] = (uint64_t)kernel_stack_top;
	tss.ist[0] = (uint64_t)fault_stack_top;
	tss.iomap = sizeof tss;
	gdt[6] = (sizeof tss - 1) | (t & 0xffffff) << 16 | 0x89ull << 40 | (t >> 24 & 0xff) << 56;
	gdt[7] = t >> 32;
	for (int v = 0; v < 256; v++)
		gate_set(v, (uint64_t)trap_stubs + (uint64_t)v * STUB_BYTES, v == 8 ? 1 : 0);

	struct table_register g = { sizeof gdt - 1, (uint64_t)gdt }, i = { sizeof idt - 1, (uint64_t)idt };
	__asm__ volatile("lgdt %0; lidt %1" : : "m"(g), "m"(i));
	__asm__ volatile("push %0; lea 1f(%%rip), %%rax; push %%rax; lretq; 1:" : : "i"(KERNEL_CS) : "rax", "memory");
	__asm__ volatile("mov %0, %%ds; mov %0, %%es; mov %0, %%ss" : : "r"(KERNEL_DS));
	__asm__ volatile("ltr %w0" : : "r"(TSS_SELECTOR));

	wrmsr(MSR_EFER, rdmsr(MSR_EFER) | 1);
	wrmsr(MSR_STAR, (uint64_t)USER_BASE << 48 | (uint64_t)KERNEL_CS << 32);
	wrmsr(MSR_LSTAR, (uint64_t)syscall_entry);
	wrmsr(MSR_SFMASK, 0x47700);
	write32(LAPIC + 0xf0, 0x100 | VECTOR_SPURIOUS);
	write32(LAPIC + 0x80, 0);
}

void cpu_eoi(void) { write32(LAPIC + 0xb0, 0); }

static void page_fault(struct trap_frame *f)
{
	uint64_t address;
	__asm__ volatile("mov %%cr2, %0" : "=r"(address));
	if (!(f->error & 1) && map_on_demand(address)) {
		stats[STAT_CPU_FAULTS]++;
		return;
	}
	print("page fault at ");
	print_hex(address);
	print(" error ");
	print_hex(f->error);
	panic(" from", f->rip);
}

void trap(struct trap_frame *f)
{
	switch (f->vector) {
	case 14:
		page_fault(f);
		return;
	case VECTOR_PAGE_REQUEST:
		vtd_page_requests();
		break;
	case VECTOR_IOMMU_FAULT:
		vtd_faults();
		break;
	case VECTOR_SPURIOUS:
		return;
	default:
		if (f->vector < 32) {
			print("exception ");
			print_hex(f->vector);
			print(" error ");
			print_hex(f->error);
			panic(" at", f->rip);
		}
		stats[STAT_INTERRUPTS]++;
	}
	cpu_eoi();
}
