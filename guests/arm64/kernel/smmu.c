/*
 * A driver for the virtual SMMUv3: stage 1 alone, a linear stream table, for each accelerator a table of 64 context
 * descriptors. Requests without a substream bypass stage 1, so that interrupt messages reach the ITS.
 */
#include "kernel.h"

enum {
	IDR0 = 0x00, IDR1 = 0x04, CR0 = 0x20, CR0ACK = 0x24, CR1 = 0x28, CR2 = 0x2c, IRQ_CTRL = 0x50, IRQ_CTRLACK = 0x54,
	GERROR = 0x60, STRTAB_BASE = 0x80, STRTAB_BASE_CFG = 0x88, CMDQ_BASE = 0x90, CMDQ_PROD = 0x98, CMDQ_CONS = 0x9c,
	EVENTQ_BASE = 0xa0, EVENTQ_PROD = 0x100a8, EVENTQ_CONS = 0x100ac,
	PRIQ_BASE = 0xc0, PRIQ_IRQ_CFG2 = 0xdc, PRIQ_PROD = 0x100c8, PRIQ_CONS = 0x100cc,
};
enum { SMMUEN = 1, PRIQEN = 2, EVENTQEN = 4, CMDQEN = 8 };
enum {
	CFGI_STE = 0x03, CFGI_ALL = 0x04, CFGI_CD = 0x05, TLBI_NH_ASID = 0x11, TLBI_NH_VA = 0x12, TLBI_NSNH_ALL = 0x30,
	ATC_INV = 0x40, PRI_RESP = 0x41, RESUME = 0x44, SYNC = 0x46,
};
enum { F_TRANSLATION = 0x10 };
enum { STREAM_BITS = 8, CONTEXT_BITS = 6, CMDQ_BITS = 7, EVENTQ_BITS = 6, PRIQ_BITS = 6 };
#define SSV (1ull << 11)

static uint64_t streams, contexts[ENGINES], command_queue, event_queue, pri_queue;
static uint32_t producer, event_consumer, pri_consumer;

static uint32_t at(uint32_t reg) { return read32(boot.smmu_base + reg); }
static void set(uint32_t reg, uint32_t v) { write32(boot.smmu_base + reg, v); }
static void set64(uint32_t reg, uint64_t v) { write64(boot.smmu_base + reg, v); }

static void command(uint64_t low, uint64_t high)
{
	uint64_t *c = (uint64_t *)va(command_queue + (producer & ((1u << CMDQ_BITS) - 1)) * 16);
	c[0] = low;
	c[1] = high;
	producer = (producer + 1) & ((2u << CMDQ_BITS) - 1);
	publish();
	set(CMDQ_PROD, producer);
}

static void synchronize(void)
{
	command(SYNC, 0);
	while ((at(CMDQ_CONS) & 0xfffff) != producer)
		if (at(CMDQ_CONS) >> 24)
			panic("SMMU command error", at(CMDQ_CONS));
}

static void enable(uint32_t bits)
{
	set(CR0, bits);
	while (at(CR0ACK) != bits)
		;
}

static void stream_init(unsigned engine)
{
	uint64_t *ste = (uint64_t *)va(streams + devices[engine].bdf * 64ull);
	contexts[engine] = page_alloc();
	/* S1DSS bypass; write-back fetches; EATS for the one that asks for translations, stalls for the other. */
	ste[1] = (engine == ENGINE_PRI ? 1ull << 28 | 1ull << 27 : 0) | 3 << 6 | 1 << 4 | 1 << 2 | 1;
	ste[0] = (uint64_t)CONTEXT_BITS << 59 | contexts[engine] | 5 << 1 | 1; /* S1CDMax, linear, stage 1, valid */
}

void smmu_init(void)
{
	uint32_t idr0 = at(IDR0), idr1 = at(IDR1);
	if (!(idr0 & 1 << 1) || (idr1 >> 6 & 31) < CONTEXT_BITS)
		panic("SMMU without stage 1 or substreams, IDR0", idr0);
	streams = pages_alloc(64ull << STREAM_BITS, 64ull << STREAM_BITS);
	command_queue = page_alloc();
	event_queue = page_alloc();
	pri_queue = page_alloc();
	for (unsigned e = 0; e < ENGINES; e++)
		stream_init(e);

	enable(0);
	set(CR1, 0xd75); /* inner shareable, write-back */
	set(CR2, 2); /* unknown streams are reported */
	set64(STRTAB_BASE, streams);
	set(STRTAB_BASE_CFG, STREAM_BITS);
	set64(CMDQ_BASE, command_queue | CMDQ_BITS);
	set(CMDQ_PROD, 0);
	set(CMDQ_CONS, 0);
	enable(CMDQEN);
	command(CFGI_ALL, 31);
	command(TLBI_NSNH_ALL, 0);
	synchronize();

	set64(EVENTQ_BASE, event_queue | EVENTQ_BITS);
	set(EVENTQ_PROD, 0);
	set(EVENTQ_CONS, 0);
	set64(PRIQ_BASE, pri_queue | PRIQ_BITS);
	set(PRIQ_PROD, 0);
	set(PRIQ_CONS, 0);
	set(PRIQ_IRQ_CFG2, 0);
	set(IRQ_CTRL, 7);
	while (at(IRQ_CTRLACK) != 7)
		;
	enable(CMDQEN | EVENTQEN | PRIQEN);
	enable(CMDQEN | EVENTQEN | PRIQEN | SMMUEN);
}

static uint64_t *context(unsigned engine, uint32_t pasid) { return (uint64_t *)va(contexts[engine] + pasid * 64ull); }

static void context_changed(unsigned engine, uint32_t pasid)
{
	publish();
	command((uint64_t)devices[engine].bdf << 32 | pasid << 12 | CFGI_CD, 1);
}

static void device_tlb(uint32_t pasid, uint64_t address, uint64_t size)
{
	uint64_t stream = (uint64_t)devices[ENGINE_PRI].bdf << 32;
	synchronize();
	command(stream | pasid << 12 | SSV | ATC_INV, address | size);
	synchronize();
}

/* Puts the process's own table behind its PASID, for both accelerators. */
void smmu_bind(uint32_t pasid, uint64_t root)
{
	for (unsigned e = 0; e < ENGINES; e++) {
		uint64_t *cd = context(e, pasid);
		cd[1] = root;
		cd[3] = sysreg_read(mair_el1);
		/* ASID and its set, abort and record, AArch64, 44-bit output, one table of 4 KB pages, 48-bit input. */
		cd[0] = (uint64_t)PROCESS_ASID << 48 | 1ull << 47 | 1ull << 46 | 1ull << 45 |
			(e == ENGINE_STALL ? 1ull << 44 : 0) | 1ull << 41 | 4ull << 32 | 1ull << 31 | 1ull << 30 | 0x3500 | 16;
		context_changed(e, pasid);
	}
	synchronize();
}

void smmu_unbind(uint32_t pasid)
{
	for (unsigned e = 0; e < ENGINES; e++) {
		context(e, pasid)[0] = 0;
		context_changed(e, pasid);
	}
	command((uint64_t)PROCESS_ASID << 48 | TLBI_NH_ASID, 0);
	device_tlb(pasid, 0, 52);
}

void smmu_invalidate_page(uint32_t pasid, uint64_t address)
{
	address &= ~(PAGE - 1);
	command((uint64_t)PROCESS_ASID << 48 | TLBI_NH_VA, address | 1);
	device_tlb(pasid, address, 0);
}

void smmu_page_requests(void)
{
	uint32_t mask = (2u << PRIQ_BITS) - 1;
	while (pri_consumer != (at(PRIQ_PROD) & mask)) {
		uint64_t *r = (uint64_t *)va(pri_queue + (pri_consumer & (mask >> 1)) * 16);
		int there = map_on_demand(r[1] & ~0xfffull);
		stats[there ? STAT_PAGE_REQUESTS : STAT_REFUSED]++;
		if (r[0] >> 62 & 1) { /* the last of its group: answer */
			uint64_t substream = r[0] >> 63 ? (r[0] >> 32 & 0xfffff) << 12 | SSV : 0;
			command(r[0] << 32 | substream | PRI_RESP, (there ? 2ull : 1ull) << 12 | (r[1] & 0x1ff));
		}
		pri_consumer = (pri_consumer + 1) & mask;
		set(PRIQ_CONS, pri_consumer);
	}
	synchronize();
}

void smmu_events(void)
{
	uint32_t mask = (2u << EVENTQ_BITS) - 1;
	while (event_consumer != (at(EVENTQ_PROD) & mask)) {
		uint64_t *r = (uint64_t *)va(event_queue + (event_consumer & (mask >> 1)) * 32);
		if ((r[0] & 0xff) == F_TRANSLATION && r[1] >> 31 & 1) {
			int there = map_on_demand(r[2]);
			stats[there ? STAT_STALLS : STAT_REFUSED]++;
			/* Try again, or abort. */
			command(r[0] >> 32 << 32 | (there ? 1u << 12 : 1u << 13) | RESUME, r[1] & 0xffff);
		} else
			stats[STAT_SMMU_FAULTS]++;
		event_consumer = (event_consumer + 1) & mask;
		set(EVENTQ_CONS, event_consumer);
	}
	synchronize();
}

void smmu_error(void) { panic("SMMU error", at(GERROR)); }
