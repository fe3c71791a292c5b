/* Finds the accelerators and switches on what SVA needs: memory decode, bus mastering, PASID, ATS, PRI, MSI-X. */
#include "kernel.h"

struct pci_device devices[ENGINES];
enum { SVA_ENGINE = 0x0e5a1234, GITS_TRANSLATER = 0x10040 };

static uint32_t capability(uint64_t config, uint8_t id)
{
	uint32_t at = read32(config + 0x34) & 0xfc;
	for (int n = 0; at && n < 48; n++) {
		uint32_t header = read32(config + at);
		if ((header & 0xff) == id)
			return at;
		at = header >> 8 & 0xfc;
	}
	return 0;
}

static uint32_t extended_capability(uint64_t config, uint16_t id)
{
	uint32_t at = 0x100;
	for (int n = 0; at && n < 480; n++) {
		uint32_t header = read32(config + at);
		if ((header & 0xffff) == id)
			return at;
		at = header >> 20;
	}
	return 0;
}

static uint64_t bar_address(uint64_t config, uint32_t bar)
{
	uint32_t low = read32(config + 0x10 + 4 * bar);
	uint64_t address = low & ~15u;
	if ((low & 6) == 4)
		address |= (uint64_t)read32(config + 0x14 + 4 * bar) << 32;
	return address;
}

static void start(struct pci_device *d, unsigned engine)
{
	uint64_t config = d->config;
	d->registers = bar_address(config, 0);
	write16(config + 4, (uint16_t)(read16(config + 4) | 0x406)); /* memory, master, no INTx */

	uint32_t at = extended_capability(config, 0x1b);
	if (!at)
		panic("no PASID capability at", d->bdf);
	write16(config + at + 6, 1);
	if (engine == ENGINE_PRI) {
		uint32_t ats = extended_capability(config, 0x0f), pri = extended_capability(config, 0x13);
		if (!ats || !pri)
			panic("no ATS or PRI capability at", d->bdf);
		write16(config + ats + 6, 0x8000);
		write32(config + pri + 12, 32);
		write16(config + pri + 4, 1);
	}

	uint32_t msix = capability(config, 0x11);
	if (!msix)
		panic("no MSI-X capability at", d->bdf);
	uint32_t where = read32(config + msix + 4);
	d->msix_table = bar_address(config, where & 7) + (where & ~7u);
	for (uint32_t v = 0; v < DEVICE_VECTORS; v++) {
		uint64_t doorbell = boot.its_base + GITS_TRANSLATER;
		write32(d->msix_table + 16 * v + 0, (uint32_t)doorbell);
		write32(d->msix_table + 16 * v + 4, (uint32_t)(doorbell >> 32));
		write32(d->msix_table + 16 * v + 8, v); /* the event; the device's id goes with the message */
		write32(d->msix_table + 16 * v + 12, 0);
	}
	write16(config + msix + 2, (uint16_t)(read16(config + msix + 2) | 0x8000));
}

void pci_init(void)
{
	for (uint32_t devfn = 0; devfn < 256; devfn += 8) {
		uint64_t config = boot.ecam_base + (uint64_t)devfn * 4096;
		if (read32(config) != SVA_ENGINE)
			continue;
		struct pci_device *d = &devices[devfn == boot.stalling ? ENGINE_STALL : ENGINE_PRI];
		d->config = config;
		d->bdf = (uint16_t)devfn;
	}
	for (unsigned e = 0; e < ENGINES; e++)
		if (!devices[e].config)
			panic("missing engine", e);
		else
			start(&devices[e], e);
}
