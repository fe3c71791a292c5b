/* The accelerators' queue 0: a ring in the process's memory. */
#include "kernel.h"

enum { QUEUE = 0x100, CONFIG = 0x00, PASID = 0x04, BASE = 0x08, SIZE = 0x10, TAIL = 0x18, STATUS = 0x20 };
enum { MODE_RING = 3, PASID_EN = 1 << 4, PRS = 1 << 6, VECTOR_1 = 1 << 8, ENABLED = 1 };
#define ENABLE (1u << 31)

static uint64_t queue(unsigned engine) { return devices[engine].registers + QUEUE; }

int64_t engine_ring_open(unsigned engine, uint32_t pasid, uint64_t address, uint64_t log2)
{
	if (engine >= ENGINES)
		return -22;
	write32(queue(engine) + PASID, pasid);
	write64(queue(engine) + BASE, address);
	write32(queue(engine) + SIZE, (uint32_t)log2);
	write32(queue(engine) + TAIL, 0);
	write32(queue(engine) + CONFIG, ENABLE | VECTOR_1 | PRS | PASID_EN | MODE_RING);
	return read32(queue(engine) + STATUS) & ENABLED ? 0 : -22;
}

void engine_ring_tail(unsigned engine, uint32_t index)
{
	publish();
	write32(queue(engine) + TAIL, index);
}

void engine_rings_close(void)
{
	for (unsigned e = 0; e < ENGINES; e++)
		write32(queue(e) + CONFIG, 0);
}
