/*
 * A guest whose memory is encrypted. It finds the C-bit, shares two pages, and lets a device copy between them: the
 * bounce buffers that DMA needs. Then it does what must not be done, DMA from and to a private page, and looks at what
 * came of it. Wherever it wants the host's view of a page shown, it writes the page's number to a port.
 */
#include <stddef.h>
#include <stdint.h>

struct boot_info { /* filled in by the VMM, address in RDI */
	uint64_t magic; /* "vfio-emu" */
	uint64_t ram_bytes, ecam_base, reserved;
	uint64_t bios; /* address of the measured BIOS page */
};
#define BOOT_MAGIC 0x756d652d6f696676ull
#define BIOS_MAGIC 0x534f49422d564553ull /* "SEV-BIOS" */

enum { CONSOLE = 0xe9, LOOK = 0xea, LEAVE = 0xf4 };
enum { CPUID_SEV = 0x8000001f, MSR_SEV_STATUS = 0xc0010131 };
enum { DMA_COPY = 0x0d0c1234, SRC = 0x00, DST = 0x08, LEN = 0x10, CTRL = 0x18, STATUS = 0x1c };
enum { P = 1, W = 2, PS = 0x80, ENTRIES = 512, PAGE = 4096 };

/* Pages with a purpose; the 2 MiB around them is mapped page by page. */
enum { BOUNCE_IN = 0x400000, BOUNCE_OUT = 0x401000, SECRET = 0x402000, VICTIM = 0x403000, TABLE = 0x404000 };

static const char secret[64] = "the guest's own secret, which the host must never come to read";

static void outb(uint16_t port, uint8_t v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static void outl(uint16_t port, uint32_t v) { __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port)); }
static uint32_t read32(uint64_t at) { return *(volatile uint32_t *)at; }
static void write32(uint64_t at, uint32_t v) { *(volatile uint32_t *)at = v; }
static void write64(uint64_t at, uint64_t v) { *(volatile uint64_t *)at = v; }

static void print(const char *text)
{
	while (*text)
		outb(CONSOLE, (uint8_t)*text++);
}

static void print_hex(uint64_t value)
{
	int shift = 60;
	print("0x");
	while (shift > 0 && !(value >> shift & 15))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		outb(CONSOLE, (uint8_t)"0123456789abcdef"[value >> shift & 15]);
}

static void print_bytes(const char *what, const uint8_t *at)
{
	print(what);
	for (int i = 0; i < 16; i++) {
		outb(CONSOLE, ' ');
		outb(CONSOLE, (uint8_t)"0123456789abcdef"[at[i] >> 4]);
		outb(CONSOLE, (uint8_t)"0123456789abcdef"[at[i] & 15]);
	}
	print("\n");
}

static _Noreturn void leave(uint32_t code)
{
	outl(LEAVE, code);
	for (;;)
		__asm__ volatile("cli; hlt");
}

static void must(int good, const char *what, uint32_t code)
{
	if (good)
		return;
	print("failed: ");
	print(what);
	print("\n");
	leave(code);
}

static void look(uint64_t page) { outl(LOOK, (uint32_t)(page / PAGE)); }

static int same(const void *a, const void *b, size_t n)
{
	const uint8_t *x = a, *y = b;
	while (n--)
		if (*x++ != *y++)
			return 0;
	return 1;
}

static void copy(void *to, const void *from, size_t n)
{
	volatile uint8_t *t = to;
	const uint8_t *f = from;
	while (n--)
		*t++ = *f++;
}

static void cpuid(uint32_t leaf, uint32_t out[4])
{
	__asm__ volatile("cpuid" : "=a"(out[0]), "=b"(out[1]), "=c"(out[2]), "=d"(out[3]) : "a"(leaf), "c"(0));
}

static uint64_t rdmsr(uint32_t msr)
{
	uint32_t lo, hi;
	__asm__ volatile("rdmsr" : "=a"(lo), "=d"(hi) : "c"(msr));
	return (uint64_t)hi << 32 | lo;
}

static uint64_t c_bit;
static uint64_t *table(uint64_t entry) { return (uint64_t *)(entry & 0xfffffffff000ull & ~c_bit); }
static uint64_t *small; /* the page table of the 2 MiB at 4 MiB */

/* Maps the 2 MiB at 4 MiB page by page, all private. */
static void split(void)
{
	uint64_t cr3;
	__asm__ volatile("mov %%cr3, %0" : "=r"(cr3));
	small = (uint64_t *)(uint64_t)TABLE;
	for (uint64_t i = 0; i < ENTRIES; i++)
		small[i] = (0x400000 + i * PAGE) | c_bit | P | W;
	table(table(table(cr3)[0])[0])[2] = (uint64_t)TABLE | c_bit | P | W;
	__asm__ volatile("mov %0, %%cr3" : : "r"(cr3 | c_bit) : "memory");
}

/* Takes the C-bit from a page, or gives it back. What the page held is lost. */
static void share(uint64_t page, int shared)
{
	small[(page - 0x400000) / PAGE] = page | (shared ? 0 : c_bit) | P | W;
	__asm__ volatile("invlpg (%0)" : : "r"(page) : "memory");
}

static uint64_t device;

static void find_device(uint64_t ecam)
{
	for (uint32_t devfn = 0; devfn < 256 && !device; devfn += 8) {
		uint64_t config = ecam + (devfn << 12);
		if (read32(config) != DMA_COPY)
			continue;
		device = read32(config + 0x10) & ~15u;
		write32(config + 4, 0x406); /* memory, master, no INTx */
	}
	must(device != 0, "no dma-copy device", 2);
}

static void dma(uint64_t from, uint64_t to, uint32_t length)
{
	write64(device + SRC, from);
	write64(device + DST, to);
	write32(device + LEN, length);
	write32(device + CTRL, 1);
	while (!(read32(device + STATUS) & 1))
		;
	must(!(read32(device + STATUS) & 2), "the device's request was refused", 3);
	write32(device + STATUS, 1);
}

void guest_main(const struct boot_info *info)
{
	uint8_t *in = (uint8_t *)(uint64_t)BOUNCE_IN, *out = (uint8_t *)(uint64_t)BOUNCE_OUT;
	uint8_t *mine = (uint8_t *)(uint64_t)SECRET, *victim = (uint8_t *)(uint64_t)VICTIM;
	uint32_t leaf[4];

	must(info->magic == BOOT_MAGIC, "boot information is not readable", 1);
	must(*(uint64_t *)info->bios == BIOS_MAGIC, "the BIOS is not readable", 1);
	cpuid(CPUID_SEV, leaf);
	must((leaf[0] & 2) && (rdmsr(MSR_SEV_STATUS) & 1), "this guest is not encrypted", 1);
	c_bit = 1ull << (leaf[1] & 63);
	print("SEV is active; C-bit ");
	print_hex(leaf[1] & 63);
	print(", address bits given up ");
	print_hex(leaf[1] >> 6 & 63);
	print("\n");

	split();
	copy(mine, secret, sizeof secret);
	print_bytes("a private page, as I read it:    ", mine);
	look(SECRET);

	share(BOUNCE_IN, 1);
	share(BOUNCE_OUT, 1);
	copy(in, secret, sizeof secret);
	for (int i = 0; i < 64; i++)
		out[i] = 0;
	print_bytes("a shared page, as I read it:     ", in);
	look(BOUNCE_IN);

	find_device(info->ecam_base);
	dma(BOUNCE_IN, BOUNCE_OUT, 64);
	must(same(out, secret, 64), "DMA between shared pages changed the bytes", 4);
	copy(victim, out, 64);
	must(same(victim, secret, 64), "a bounced page differs", 5);
	print("DMA through shared bounce buffers: every byte arrived\n");

	dma(SECRET, BOUNCE_OUT, 64);
	must(!same(out, secret, 16), "the device read my plaintext", 6);
	print_bytes("DMA from the private page gave:  ", out);

	copy(in, "bytes from a device that do not belong here, and that I will not read", 64);
	dma(BOUNCE_IN, VICTIM, 64);
	must(!same(victim, in, 16) && !same(victim, secret, 16), "DMA to a private page went in clear", 7);
	print_bytes("DMA to a private page left me:   ", victim);
	uint8_t first[16];
	copy(first, victim, 16);
	__asm__ volatile("invlpg (%0)" : : "r"((uint64_t)VICTIM) : "memory");
	must(same(first, victim, 16), "garbage is not stable", 8);

	share(BOUNCE_IN, 0);
	share(BOUNCE_OUT, 0);
	must(!same(in, "bytes from", 10), "a page made private reads as what was shared", 9);
	print("shared pages are private again, and what they held is gone\n");
	must(same(mine, secret, sizeof secret), "my own page changed", 10);
	leave(0);
}
