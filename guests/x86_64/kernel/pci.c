/* Finds the accelerator and switches on what SVA needs: memory decode, bus mastering, PASID, ATS, PRI, MSI-X. */
#include "kernel.h"

struct pci_device device;
enum { SVA_ENGINE = 0x0e5a1234 };

static uint32_t config_read(uint32_t offset) { return read32(device.config + offset); }
static void config_write(uint32_t offset, uint32_t v) { write32(device.config + offset, v); }
static uint16_t read16(uint64_t at) { return *(volatile uint16_t *)at; }
static void write16(uint64_t at, uint16_t v) { *(volatile uint16_t *)at = v; }

static uint32_t capability(uint8_t id)
{
	uint32_t at = config_read(0x34) & 0xfc;
	for (int n = 0; at && n < 48; n++) {
		uint32_t header = config_read(at);
		if ((header & 0xff) == id)
			return at;
		at = header >> 8 & 0xfc;
	}
	return 0;
}

static uint32_t extended_capability(uint16_t id)
{
	uint32_t at = 0x100;
	for (int n = 0; at && n < 480; n++) {
		uint32_t header = config_read(at);
		if ((header & 0xffff) == id)
			return at;
		at = header >> 20;
	}
	return 0;
}

static uint64_t bar_address(uint32_t bar)
{
	uint32_t low = config_read(0x10 + 4 * bar);
	uint64_t address = low & ~15u;
	if ((low & 6) == 4)
		address |= (uint64_t)config_read(0x14 + 4 * bar) << 32;
	return address;
}

static int find(uint64_t ecam)
{
	for (uint32_t bus = 0; bus < 4; bus++)
		for (uint32_t devfn = 0; devfn < 256; devfn += 8) {
			uint64_t at = ecam + ((uint64_t)bus << 20 | devfn << 12);
			if (read32(at) != SVA_ENGINE)
				continue;
			device.config = at;
			device.bdf = (uint16_t)(bus << 8 | devfn);
			return 1;
		}
	return 0;
}

void pci_init(uint64_t ecam)
{
	if (!find(ecam))
		panic("no sva-engine below", ecam);
	device.registers = bar_address(0);
	device.portals = bar_address(4);
	write16(device.config + 4, (uint16_t)(read16(device.config + 4) | 0x406)); /* memory, master, no INTx */

	uint32_t at = extended_capability(0x1b);
	if (!at)
		panic("no PASID capability at", device.bdf);
	write16(device.config + at + 6, 1);
	at = extended_capability(0x0f);
	if (at)
		write16(device.config + at + 6, 0x8000);
	at = extended_capability(0x13);
	if (at) {
		config_write(at + 12, 32);
		write16(device.config + at + 4, 1);
	}

	uint32_t msix = capability(0x11);
	if (!msix)
		panic("no MSI-X capability at", device.bdf);
	uint32_t where = config_read(msix + 4);
	device.msix_table = bar_address(where & 7) + (where & ~7u);
	for (uint32_t v = 0; v < 2; v++) {
		write32(device.msix_table + 16 * v + 0, 0xfee00000);
		write32(device.msix_table + 16 * v + 4, 0);
		write32(device.msix_table + 16 * v + 8, VECTOR_DEVICE + v);
		write32(device.msix_table + 16 * v + 12, 0);
	}
	write16(device.config + msix + 2, (uint16_t)(read16(device.config + msix + 2) | 0x8000));
}
