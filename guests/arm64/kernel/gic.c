/*
 * GICv3: SPIs of the SMMU, the virtual timer's PPI, and LPIs that the ITS makes of the devices' messages: device id is
 * the requester id, event v of engine e is LPI FIRST_LPI + e * DEVICE_VECTORS + v.
 */
#include "kernel.h"

enum { CTLR = 0, IGROUPR = 0x80, ISENABLER = 0x100, IPRIORITYR = 0x400, ICFGR = 0xc00 };
enum { GICR_CTLR = 0, GICR_WAKER = 0x14, GICR_PROPBASER = 0x70, GICR_PENDBASER = 0x78, SGI_BASE = 0x10000 };
enum { GITS_CTLR = 0, GITS_CBASER = 0x80, GITS_CWRITER = 0x88, GITS_CREADR = 0x90, GITS_BASER = 0x100 };
enum { MAPD = 0x08, MAPC = 0x09, MAPTI = 0x0a, INVALL = 0x0d, SYNC = 0x05 };
enum { PRIORITY = 0xa0, LPI_ENABLED = 1, LPI_BITS = 14 };
#define VALID (1ull << 63)

static uint64_t commands, tail;

static void command(uint64_t d0, uint64_t d1, uint64_t d2)
{
	uint64_t *c = (uint64_t *)va(commands + tail);
	c[0] = d0;
	c[1] = d1;
	c[2] = d2;
	c[3] = 0;
	tail = (tail + 32) % PAGE;
	publish();
	write64(boot.its_base + GITS_CWRITER, tail);
	while (read64(boot.its_base + GITS_CREADR) != tail)
		;
}

static void spi(uint32_t intid)
{
	uint64_t d = boot.gicd_base;
	uint32_t word = intid / 32 * 4, bit = 1u << intid % 32;
	write32(d + IGROUPR + word, read32(d + IGROUPR + word) | bit);
	write8(d + IPRIORITYR + intid, PRIORITY);
	write32(d + ICFGR + intid / 16 * 4, read32(d + ICFGR + intid / 16 * 4) | 2u << intid % 16 * 2); /* edge */
	write64(d + 0x6000 + 8ull * intid, sysreg_read(mpidr_el1) & 0xff00ffffff);
	write32(d + ISENABLER + word, bit);
}

static void lpis_init(void)
{
	uint64_t r = boot.gicr_base;
	uint64_t properties = pages_alloc(1 << LPI_BITS, PAGE), pending = pages_alloc(0x10000, 0x10000);
	for (uint32_t i = 0; i < ENGINES * DEVICE_VECTORS; i++)
		((uint8_t *)va(properties))[i] = PRIORITY | LPI_ENABLED;
	publish();
	write64(r + GICR_PROPBASER, properties | (LPI_BITS - 1));
	write64(r + GICR_PENDBASER, pending);
	write32(r + GICR_CTLR, 1);
}

static void its_init(void)
{
	uint64_t its = boot.its_base;
	for (uint32_t n = 0; n < 2; n++) {
		uint64_t baser = read64(its + GITS_BASER + 8 * n);
		uint32_t type = baser >> 56 & 7;
		if (type == 1 || type == 4)
			write64(its + GITS_BASER + 8 * n, VALID | page_alloc());
	}
	commands = page_alloc();
	write64(its + GITS_CBASER, VALID | commands);
	write64(its + GITS_CWRITER, 0);
	write32(its + GITS_CTLR, 1);
	command(MAPC, 0, VALID); /* collection 0: processor 0 */
	for (uint32_t e = 0; e < ENGINES; e++) {
		uint64_t device = (uint64_t)devices[e].bdf << 32;
		command(device | MAPD, 0, VALID | page_alloc()); /* one bit of event id */
		for (uint32_t v = 0; v < DEVICE_VECTORS; v++)
			command(device | MAPTI, (uint64_t)(FIRST_LPI + e * DEVICE_VECTORS + v) << 32 | v, 0);
	}
	command(INVALL, 0, 0);
	command(SYNC, 0, 0);
}

void gic_init(void)
{
	uint64_t r = boot.gicr_base;
	write32(boot.gicd_base + CTLR, 0x12); /* affinity routing, group 1 */
	write32(r + GICR_WAKER, 0);
	while (read32(r + GICR_WAKER) & 4)
		;
	write32(r + SGI_BASE + IGROUPR, ~0u);
	write8(r + SGI_BASE + IPRIORITYR + PPI_VIRTUAL_TIMER, PRIORITY);
	write32(r + SGI_BASE + ISENABLER, 1u << PPI_VIRTUAL_TIMER);
	spi(SPI_EVENTQ);
	spi(SPI_PRIQ);
	spi(SPI_GERROR);
	lpis_init();
	its_init();
	sysreg_write(s3_0_c12_c12_5, 7); /* ICC_SRE_EL1 */
	isb();
	sysreg_write(s3_0_c4_c6_0, 0xf0); /* ICC_PMR_EL1 */
	sysreg_write(s3_0_c12_c12_7, 1); /* ICC_IGRPEN1_EL1 */
	isb();
}

uint32_t gic_acknowledge(void) { return (uint32_t)sysreg_read(s3_0_c12_c12_0); }

void gic_end(uint32_t intid)
{
	sysreg_write(s3_0_c12_c12_1, intid);
	isb();
}
