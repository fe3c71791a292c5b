/*
 * A driver for the virtual VT-d: scalable mode, first-stage tables only. PASIDs come from the virtual
 * command registers (VT-d 3.3 layout), because the host owns the PASID space.
 */
#include "kernel.h"

enum {
	CAP = 0x08, ECAP = 0x10, GCMD = 0x18, GSTS = 0x1c, RTADDR = 0x20, FSTS = 0x34, FECTL = 0x38, FEDATA = 0x3c,
	FEADDR = 0x40, FEUADDR = 0x44, IQH = 0x80, IQT = 0x88, IQA = 0x90, PQH = 0xc0, PQT = 0xc8, PQA = 0xd0,
	PRS = 0xdc, PECTL = 0xe0, PEDATA = 0xe4, PEADDR = 0xe8, PEUADDR = 0xec, VCMD = 0xe00, VCRSP = 0xe10,
};
enum { TE = 1u << 31, SRTP = 1u << 30, QIE = 1u << 26 };
enum { D_IOTLB = 6, D_PASID_CACHE = 7, D_DEVTLB = 8, D_WAIT = 5, D_CONTEXT = 1, D_PAGE_RESPONSE = 9 };
enum { DOMAIN = 1, QUEUE_SLOTS = 128, REQUEST_SLOTS = 128 };

struct descriptor { uint64_t q[4]; };

static uint64_t base, root_table, context_table, pasid_directory;
static struct descriptor *queue, *requests;
static uint32_t tail, request_head;
static volatile uint32_t wait_status;
static uint16_t source;

static void command(uint32_t bit, uint32_t keep)
{
	write32(base + GCMD, bit | keep);
	while (!(read32(base + GSTS) & bit))
		;
}

static void submit(uint64_t q0, uint64_t q1)
{
	queue[tail] = (struct descriptor){ { q0, q1, 0, 0 } };
	tail = (tail + 1) % QUEUE_SLOTS;
	write64(base + IQT, (uint64_t)tail << 5);
}

static void wait(void)
{
	wait_status = 0;
	submit(1ull << 32 | 1 << 5 | D_WAIT, (uint64_t)&wait_status);
	while (!wait_status)
		;
}

void vtd_init(uint64_t where, uint16_t bdf)
{
	base = where;
	source = bdf;
	if (!(read64(base + ECAP) >> 43 & 1))
		panic("IOMMU without scalable mode, ECAP", read64(base + ECAP));

	root_table = page_alloc();
	context_table = page_alloc();
	pasid_directory = page_alloc();
	page_alloc(); /* the directory is two pages: 1024 entries for 65536 PASIDs */
	((uint64_t *)root_table)[(bdf >> 8) * 2 + (bdf >> 7 & 1)] = context_table | 1;
	uint64_t *context = (uint64_t *)(context_table + (uint64_t)(bdf & 127) * 32);
	context[1] = 0; /* RID_PASID 0 */
	context[0] = pasid_directory | 3 << 9 | 1 << 4 | 1 << 3 | 1 << 2 | 1; /* PDTS, PRE, PASIDE, DTE, P */

	queue = (struct descriptor *)page_alloc();
	requests = (struct descriptor *)page_alloc();
	write64(base + IQA, (uint64_t)queue | 1 << 11);
	write64(base + IQT, 0);
	command(QIE, 0);
	write64(base + RTADDR, root_table | 1 << 10);
	command(SRTP, QIE);
	submit(1 << 4 | D_CONTEXT, 0);
	submit(3 << 4 | D_PASID_CACHE, 0);
	wait();

	write32(base + FEDATA, VECTOR_IOMMU_FAULT);
	write32(base + FEADDR, 0xfee00000);
	write32(base + FEUADDR, 0);
	write32(base + FECTL, 0);
	write64(base + PQA, (uint64_t)requests);
	write32(base + PEDATA, VECTOR_PAGE_REQUEST);
	write32(base + PEADDR, 0xfee00000);
	write32(base + PEUADDR, 0);
	write32(base + PECTL, 0);
	command(TE, QIE);
}

int64_t vtd_pasid_alloc(void)
{
	write64(base + VCMD, 1);
	uint64_t response;
	while ((response = read64(base + VCRSP)) & 1)
		;
	return response >> 1 & 127 ? -(int64_t)(response >> 1 & 127) : (int64_t)(response >> 16 & 0xfffff);
}

void vtd_pasid_free(uint32_t pasid)
{
	write64(base + VCMD, (uint64_t)pasid << 16 | 2);
	while (read64(base + VCRSP) & 1)
		;
}

static uint64_t *pasid_entry(uint32_t pasid)
{
	uint64_t *directory = &((uint64_t *)pasid_directory)[pasid >> 6];
	if (!(*directory & 1))
		*directory = page_alloc() | 1;
	return (uint64_t *)((*directory & ~0xfffull) + (uint64_t)(pasid & 63) * 64);
}

static void pasid_changed(uint32_t pasid)
{
	submit((uint64_t)pasid << 32 | DOMAIN << 16 | 1 << 4 | D_PASID_CACHE, 0);
	submit((uint64_t)pasid << 32 | DOMAIN << 16 | 2 << 4 | D_IOTLB, 0);
	submit((uint64_t)pasid << 32 | (uint64_t)source << 16 | D_DEVTLB, 0x7ffffffffffff000ull | 1 << 11);
	wait();
}

void vtd_bind(uint32_t pasid, uint64_t root)
{
	uint64_t *entry = pasid_entry(pasid);
	entry[1] = DOMAIN;
	entry[2] = root; /* FSPTPTR; FSPM 0 = 4-level */
	entry[0] = 1 << 6 | 1; /* PGTT first-stage, present */
	pasid_changed(pasid);
}

void vtd_unbind(uint32_t pasid)
{
	pasid_entry(pasid)[0] = 0;
	pasid_changed(pasid);
}

void vtd_invalidate_page(uint32_t pasid, uint64_t va)
{
	submit((uint64_t)pasid << 32 | DOMAIN << 16 | 3 << 4 | D_IOTLB, va & ~(PAGE - 1));
	submit((uint64_t)pasid << 32 | (uint64_t)source << 16 | D_DEVTLB, va & ~(PAGE - 1));
	wait();
}

void vtd_page_requests(void)
{
	write32(base + PRS, 1);
	while (request_head != read64(base + PQT) >> 5) {
		struct descriptor *r = &requests[request_head];
		uint64_t address = r->q[1] & ~0xfffull;
		int there = map_on_demand(address);
		stats[there ? STAT_PAGE_REQUESTS : STAT_REFUSED]++;
		if (r->q[1] & 4) { /* last of its group: answer */
			uint64_t code = there ? 0 : 1;
			uint64_t has_pasid = r->q[0] >> 8 & 1;
			submit((r->q[0] & 0x000fffffffff0000ull) | code << 12 | has_pasid << 4 | D_PAGE_RESPONSE,
			       r->q[1] & 0xff8);
		}
		request_head = (request_head + 1) % REQUEST_SLOTS;
		write64(base + PQH, (uint64_t)request_head << 5);
	}
}

void vtd_faults(void)
{
	uint64_t records = base + ((read64(base + CAP) >> 24 & 0x3ff) << 4);
	uint64_t count = (read64(base + CAP) >> 40 & 0xff) + 1;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t high = read64(records + 16 * i + 8);
		if (!(high >> 63))
			continue;
		stats[STAT_IOMMU_FAULTS]++;
		write32(records + 16 * i + 12, 1u << 31);
	}
	write32(base + FSTS, 1);
}
