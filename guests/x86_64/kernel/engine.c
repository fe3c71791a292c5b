/* The accelerator's queues: 0 is shared and reached by ENQCMD, 1 is a ring in the process's memory. */
#include "kernel.h"

enum { QUEUES = 0x100, STRIDE = 0x40, CONFIG = 0x00, PASID = 0x04, BASE = 0x08, SIZE = 0x10, TAIL = 0x18, STATUS = 0x20 };
enum { MODE_SHARED = 1, MODE_RING = 3, PASID_EN = 1 << 4, PRS = 1 << 6, VECTOR_1 = 1 << 8, ENABLED = 1 };
#define ENABLE (1u << 31)

static uint64_t queue(int n) { return device.registers + QUEUES + (uint64_t)n * STRIDE; }

void engine_init(void)
{
	write32(queue(0) + CONFIG, ENABLE | PRS | MODE_SHARED);
	if (!(read32(queue(0) + STATUS) & ENABLED))
		panic("shared queue not enabled, status", read32(queue(0) + STATUS));
}

int64_t engine_ring_open(uint32_t pasid, uint64_t address, uint64_t log2)
{
	write32(queue(1) + PASID, pasid);
	write64(queue(1) + BASE, address);
	write32(queue(1) + SIZE, (uint32_t)log2);
	write32(queue(1) + TAIL, 0);
	write32(queue(1) + CONFIG, ENABLE | VECTOR_1 | PRS | PASID_EN | MODE_RING);
	return read32(queue(1) + STATUS) & ENABLED ? 0 : -22;
}

void engine_ring_tail(uint32_t index) { write32(queue(1) + TAIL, index); }

void engine_ring_close(void) { write32(queue(1) + CONFIG, 0); }
