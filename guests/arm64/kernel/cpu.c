/* The trap dispatcher, sleeping, and the virtual timer. */
#include "kernel.h"

/* Vectors by number: four of each of SP_EL0, SP_ELx, lower EL in AArch64, lower EL in AArch32. */
enum { EL1_IRQ = 5, EL0_SYNC = 8, EL0_IRQ = 9 };
enum { EC_SVC = 0x15, EC_FETCH_ABORT = 0x20, EC_DATA_ABORT = 0x24 };
enum { CTL_ENABLE = 1, CTL_MASK = 2 };

extern int64_t syscall(uint64_t number, uint64_t a, uint64_t b, uint64_t c);
static volatile uint64_t wakes;

void cpu_init(void)
{
	sysreg_write(cntkctl_el1, 0);
	sysreg_write(cntv_ctl_el0, 0);
}

static void interrupts(void)
{
	uint32_t intid;
	while ((intid = gic_acknowledge()) != 1023) {
		switch (intid) {
		case SPI_EVENTQ:
			smmu_events();
			break;
		case SPI_PRIQ:
			smmu_page_requests();
			break;
		case SPI_GERROR:
			smmu_error();
		case PPI_VIRTUAL_TIMER:
			sysreg_write(cntv_ctl_el0, CTL_ENABLE | CTL_MASK);
			isb();
			break;
		default:
			if (intid < FIRST_LPI)
				panic("interrupt", intid);
			stats[STAT_INTERRUPTS]++;
		}
		wakes++;
		gic_end(intid);
	}
}

static void synchronous(struct trap_frame *f)
{
	uint64_t ec = f->esr >> 26;
	if (ec == EC_SVC) {
		f->x[0] = (uint64_t)syscall(f->x[8], f->x[0], f->x[1], f->x[2]);
		return;
	}
	/* Translation faults, levels 0 to 3. */
	int missing = (f->esr & 0x3c) == 4;
	if (ec == EC_DATA_ABORT && missing && map_on_demand(f->far)) {
		stats[STAT_CPU_FAULTS]++;
		return;
	}
	print("process: ESR ");
	print_hex(f->esr);
	print(" FAR ");
	print_hex(f->far);
	panic(" at", f->pc);
}

void trap(uint64_t kind, struct trap_frame *f)
{
	if (kind == EL0_SYNC)
		synchronous(f);
	else if (kind == EL0_IRQ || kind == EL1_IRQ)
		interrupts();
	else {
		print("vector ");
		print_hex(kind);
		print(" ESR ");
		print_hex(f->esr);
		print(" FAR ");
		print_hex(f->far);
		panic(" at", f->pc);
	}
}

void cpu_wait(void)
{
	/* Masked while we look, so that nothing comes between the look and the WFI. */
	__asm__ volatile("wfi\n msr daifclr, #2\n isb\n msr daifset, #2" : : : "memory");
}

uint64_t cpu_sleep(uint64_t ticks)
{
	isb();
	uint64_t start = sysreg_read(cntvct_el0);
	sysreg_write(cntv_cval_el0, start + ticks);
	sysreg_write(cntv_ctl_el0, CTL_ENABLE);
	isb();
	while (!(sysreg_read(cntv_ctl_el0) & CTL_MASK))
		cpu_wait();
	sysreg_write(cntv_ctl_el0, 0);
	isb();
	return sysreg_read(cntvct_el0) - start;
}
