/*
 * Random operations on a GICv3 and its ITS, from a seed: distributor, redistributor, CPU interface by system registers,
 * commands. After each the whole state is looked at; a case ends with a hash of all that was seen. The same image runs
 * on QEMU's `virt` machine (cortex-a57: five bits of priority, as here) and on our VMM, whose map is the same.
 * Left out: what is UNPREDICTABLE, input lines, and two things in which QEMU differs from hardware and KVM: ICC_SGI1R for
 * an SGI of group 0 (with one Security state it is sent), and one group disabled in the CPU interface alone (it does not
 * hide interrupts of the other that have a lower priority). Priorities are written in the five bits that there are; QEMU's
 * distributor keeps eight.
 */
#include <stdint.h>

#define GICD 0x08000000ull
#define GITS 0x08080000ull
#define GICR 0x080a0000ull
#define SGI (GICR + 0x10000)
#define UART 0x09000000ull
#define VALID (1ull << 63)

/* The runner writes these into the image. */
struct {
	uint64_t magic, seed, cases, from, verbose;
} parameters __attribute__((section(".parameters"))) = { 0x7265746d61726170, 1, 10, 0, 0 };

enum { LPIS = 16, EVENTS = 10, OPERATIONS = 48 };
static uint8_t devices[0x10000] __attribute__((aligned(0x10000)));
static uint8_t collections[0x10000] __attribute__((aligned(0x10000)));
static uint8_t pending[0x10000] __attribute__((aligned(0x10000)));
static uint8_t properties[0x4000] __attribute__((aligned(0x1000)));
static uint8_t itt[2][0x1000] __attribute__((aligned(0x1000)));
static uint64_t queue[512] __attribute__((aligned(0x1000)));
static uint32_t tail;
static uint32_t x;
static uint64_t hash;
static int telling;
static uint32_t taken[32], groups[32], depth;

static uint32_t r32(uint64_t a) { uint32_t v; __asm__ volatile("ldr %w0, [%1]" : "=r"(v) : "r"(a) : "memory"); return v; }
static uint64_t r64(uint64_t a) { uint64_t v; __asm__ volatile("ldr %0, [%1]" : "=r"(v) : "r"(a) : "memory"); return v; }
static void w32(uint64_t a, uint32_t v) { __asm__ volatile("str %w0, [%1]" : : "r"(v), "r"(a) : "memory"); }
static void w64(uint64_t a, uint64_t v) { __asm__ volatile("str %0, [%1]" : : "r"(v), "r"(a) : "memory"); }
static void w8(uint64_t a, uint32_t v) { __asm__ volatile("strb %w0, [%1]" : : "r"(v), "r"(a) : "memory"); }
#define get(name) ({ uint64_t v_; __asm__ volatile("isb\n mrs %0, " #name : "=r"(v_) : : "memory"); v_; })
#define put(name, value) __asm__ volatile("msr " #name ", %0\n isb" : : "r"((uint64_t)(value)) : "memory")
#define PMR s3_0_c4_c6_0
#define IAR0 s3_0_c12_c8_0
#define EOIR0 s3_0_c12_c8_1
#define HPPIR0 s3_0_c12_c8_2
#define BPR0 s3_0_c12_c8_3
#define AP0R0 s3_0_c12_c8_4
#define AP1R0 s3_0_c12_c9_0
#define DIR s3_0_c12_c11_1
#define RPR s3_0_c12_c11_3
#define SGI1R s3_0_c12_c11_5
#define SGI0R s3_0_c12_c11_7
#define IAR1 s3_0_c12_c12_0
#define EOIR1 s3_0_c12_c12_1
#define HPPIR1 s3_0_c12_c12_2
#define BPR1 s3_0_c12_c12_3
#define ICTLR s3_0_c12_c12_4
#define SRE s3_0_c12_c12_5
#define IGRPEN0 s3_0_c12_c12_6
#define IGRPEN1 s3_0_c12_c12_7
#define GET(name) get(name)
#define PUT(name, value) put(name, value)

static uint32_t draw(uint32_t limit)
{
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return (uint32_t)((uint64_t)x * limit >> 32);
}

static void text(const char *s)
{
	while (*s)
		w8(UART, (uint8_t)*s++);
}

static void hex(uint64_t v)
{
	int shift = 60;
	while (shift > 0 && !(v >> shift & 15))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		w8(UART, (uint8_t)"0123456789abcdef"[v >> shift & 15]);
}

static void see(const char *what, uint64_t v)
{
	hash = (hash ^ v) * 0x100000001b3ull;
	hash ^= hash >> 29;
	if (!telling)
		return;
	text(" ");
	text(what);
	text("=");
	hex(v);
}

static void say(const char *what)
{
	if (telling)
		text(what);
}

static void command(uint64_t a, uint64_t b, uint64_t c)
{
	queue[tail * 4 + 0] = a;
	queue[tail * 4 + 1] = b;
	queue[tail * 4 + 2] = c;
	queue[tail * 4 + 3] = 0;
	tail = (tail + 1) % 128;
	__asm__ volatile("dsb sy" : : : "memory");
	w64(GITS + 0x88, tail * 32);
}

static uint64_t device(uint32_t id) { return (uint64_t)id << 32; }
static void mapd(uint32_t id, int valid)
{
	command(8 | device(id), 2, (valid ? VALID : 0) | (uint64_t)itt[id & 1]);
}
static void mapc(uint32_t icid, int valid) { command(9, 0, (valid ? VALID : 0) | icid); }
static void mapti(uint32_t id, uint32_t event, uint32_t lpi, uint32_t icid)
{
	command(0xa | device(id), (uint64_t)lpi << 32 | event, icid);
}
static void event_command(uint32_t number, uint32_t id, uint32_t event, uint32_t icid)
{
	command(number | device(id), event, icid);
}

static void look(void)
{
	say(" |");
	see("isr", get(isr_el1) >> 6 & 3);
	see("h0", GET(HPPIR0));
	see("h1", GET(HPPIR1));
	see("rpr", GET(RPR));
	see("ap0", GET(AP0R0));
	see("ap1", GET(AP1R0));
	see("bpr", GET(BPR0) << 4 | GET(BPR1));
	see("pmr", GET(PMR));
	see("ctlr", GET(ICTLR) & 3);
	see("grp", GET(IGRPEN0) | GET(IGRPEN1) << 1);
	see("pend", (uint64_t)r32(GICD + 0x208) << 32 | r32(SGI + 0x200));
	see("act", (uint64_t)r32(GICD + 0x308) << 32 | r32(SGI + 0x300));
	see("en", (uint64_t)r32(GICD + 0x108) << 32 | r32(SGI + 0x100));
	see("gr", (uint64_t)r32(GICD + 0x88) << 32 | r32(SGI + 0x80));
	see("dctlr", r32(GICD) & 0x53);
	see("cfg", (uint64_t)r32(GICD + 0xc14) << 32 | r32(GICD + 0xc10));
	for (uint32_t i = 0; i < 32; i += 8) {
		see("pri", (uint64_t)r32(SGI + 0x404 + i) << 32 | r32(SGI + 0x400 + i));
		see("spi", (uint64_t)r32(GICD + 0x444 + i) << 32 | r32(GICD + 0x440 + i));
	}
	say("\n");
}

/* Everything off and clear, the tables of the ITS empty. */
static void reset(void)
{
	w32(GICD, 0x10);
	w32(SGI + 0x180, ~0u);
	w32(SGI + 0x280, ~0u);
	w32(SGI + 0x380, ~0u);
	w32(SGI + 0x80, 0);
	w32(GICD + 0x188, ~0u);
	w32(GICD + 0x288, ~0u);
	w32(GICD + 0x388, ~0u);
	w32(GICD + 0x88, 0);
	for (uint32_t i = 0; i < 32; i += 4) {
		w32(SGI + 0x400 + i, 0);
		w32(GICD + 0x440 + i, 0);
	}
	w32(GICD + 0xc10, 0);
	w32(GICD + 0xc14, 0);
	PUT(ICTLR, 0);
	PUT(AP0R0, 0);
	PUT(AP1R0, 0);
	PUT(BPR0, 0);
	PUT(BPR1, 0);
	PUT(PMR, 0);
	PUT(IGRPEN0, 0);
	PUT(IGRPEN1, 0);
	depth = 0;
	mapc(0, 1);
	mapd(0, 1);
	for (uint32_t i = 0; i < LPIS; i++) {
		mapti(0, 0, 8192 + i, 0);
		event_command(4, 0, 0, 0); /* CLEAR */
	}
	for (uint32_t d = 0; d < 2; d++) {
		mapd(d, 1);
		for (uint32_t e = 0; e < 8; e++)
			event_command(0xf, d, e, 0); /* DISCARD */
		mapd(d, 0);
	}
	mapc(1, 0);
	for (uint32_t i = 0; i < LPIS; i++)
		properties[i] = (uint8_t)(draw(32) << 3 | 2 | draw(4) % 3);
	command(0xd, 0, 0); /* INVALL */
	for (uint32_t i = 0; i < 32; i++) {
		w8(SGI + 0x400 + i, draw(8) << 5 | draw(2) << 3);
		w8(GICD + 0x440 + i, draw(8) << 5 | draw(2) << 3);
	}
	w32(SGI + 0x80, draw(~0u));
	w32(GICD + 0x88, draw(~0u));
	w32(SGI + 0x100, draw(~0u) & 0xffff);
	w32(GICD + 0x108, draw(~0u));
	PUT(PMR, 0xf8);
	PUT(IGRPEN0, 1);
	PUT(IGRPEN1, 1);
	w32(GICD, 0x13);
}

static void end(uint32_t i)
{
	uint32_t intid = taken[i];
	see("intid", intid);
	if (groups[i])
		PUT(EOIR1, intid);
	else
		PUT(EOIR0, intid);
}

static void forget(uint32_t i)
{
	depth--;
	for (; i < depth; i++) {
		taken[i] = taken[i + 1];
		groups[i] = groups[i + 1];
	}
}

static void acknowledge(uint32_t group)
{
	uint64_t intid = group ? GET(IAR1) : GET(IAR0);
	see("intid", intid);
	if (intid != 1023 && depth < 32) {
		taken[depth] = (uint32_t)intid;
		groups[depth++] = group;
	}
}

/* One bit of SGIs, or of SPIs 64 to 95, in a register of the family at `at`. */
static void bit(uint64_t at)
{
	uint32_t v = 1u << draw(32);
	if (draw(2))
		w32(GICD + at + 8, v);
	else
		w32(SGI + at, v & 0xffff);
	see("bit", v);
}

static void operation(void)
{
	uint32_t d = draw(3), e = draw(EVENTS), c = draw(3);
	switch (draw(32)) {
	case 0: case 1: case 2: say("ispendr"); bit(0x200); break;
	case 3: say("icpendr"); bit(0x280); break;
	case 4: say("isenabler"); bit(0x100); break;
	case 5: say("icenabler"); bit(0x180); break;
	case 6: say("isactiver"); bit(0x300); break;
	case 7: say("icactiver"); bit(0x380); break;
	case 8: say("igroupr"); w32(GICD + 0x88, draw(~0u)); w32(SGI + 0x80, draw(~0u)); break;
	case 9: say("priority"); w8(draw(2) ? SGI + 0x400 + draw(16) : GICD + 0x440 + draw(32), draw(32) << 3); break;
	case 10: say("icfgr"); w32(GICD + 0xc10 + 4 * draw(2), draw(~0u) & 0xaaaaaaaa); break;
	case 11: {
		say("sgi1r");
		uint32_t intid = draw(16), affinity = draw(4), list = draw(4);
		if (r32(SGI + 0x80) >> intid & 1)
			PUT(SGI1R, (uint64_t)intid << 24 | affinity << 16 | list);
		break;
	}
	case 12: say("sgi0r"); PUT(SGI0R, (uint64_t)draw(16) << 24 | draw(3)); break;
	case 13: say("pmr"); PUT(PMR, draw(4) ? 0xf8 : draw(256)); break;
	case 14: say("bpr0"); PUT(BPR0, draw(8)); break;
	case 15: say("bpr1"); PUT(BPR1, draw(8)); break;
	case 16: say("ctlr"); PUT(ICTLR, draw(4)); break;
	case 17: {
		say("igrpen");
		uint32_t on = draw(4) > 0;
		PUT(IGRPEN0, on);
		PUT(IGRPEN1, on);
		break;
	}
	case 18: say("gicd_ctlr"); w32(GICD, 0x10 | (draw(8) ? 3 : draw(4))); break;
	case 19: case 20: say("iar1"); acknowledge(1); break;
	case 21: say("iar0"); acknowledge(0); break;
	case 22: case 23:
		say("eoi");
		if (depth) {
			uint32_t i = draw(4) ? depth - 1 : draw(depth);
			end(i);
			if (!(GET(ICTLR) & 2))
				forget(i);
		}
		break;
	case 24:
		say("dir");
		if (depth) {
			uint32_t i = draw(depth);
			see("intid", taken[i]);
			if (taken[i] < 8192)
				PUT(DIR, taken[i]);
			if (GET(ICTLR) & 2)
				forget(i);
		}
		break;
	case 25: say("mapd"); mapd(d == 2 ? 0xfff0 : d, draw(4) > 0); break;
	case 26: say("mapc"); mapc(draw(2), draw(4) > 0); break;
	case 27: case 28: say("mapti"); mapti(d, e, 8192 + draw(LPIS) - (draw(8) == 0 ? 20 : 0), c); break;
	case 29: case 30: say("int"); event_command(3, d, e, 0); break;
	default:
		switch (draw(4)) {
		case 0: say("clear"); event_command(4, d, e, 0); break;
		case 1: say("discard"); event_command(0xf, d, e, 0); break;
		case 2: say("movi"); event_command(1, d, e, c); break;
		default:
			say("configure");
			mapc(0, 1);
			properties[draw(LPIS)] = (uint8_t)(draw(32) << 3 | 2 | draw(2));
			command(0xd, 0, 0);
		}
	}
	look();
}

void start(void)
{
	w32(GICD, 0x10);
	w32(GICR + 0x14, 0);
	while (r32(GICR + 0x14) & 4)
		;
	w64(GICR + 0x70, (uint64_t)properties | 13);
	w64(GICR + 0x78, (uint64_t)pending);
	w32(GICR, 1);
	w64(GITS + 0x100, VALID | (r64(GITS + 0x100) & 0x71full << 48) | 2 << 8 | (uint64_t)devices);
	w64(GITS + 0x108, VALID | (r64(GITS + 0x108) & 0x71full << 48) | 2 << 8 | (uint64_t)collections);
	w64(GITS + 0x80, VALID | (uint64_t)queue);
	w64(GITS + 0x88, 0);
	w32(GITS, 1);
	PUT(SRE, 7);
	for (uint64_t n = parameters.from; n < parameters.from + parameters.cases; n++) {
		x = (uint32_t)((parameters.seed * 0x10001 + n) * 0x9e3779b9u) | 1;
		hash = 0xcbf29ce484222325ull;
		reset();
		telling = parameters.verbose != 0;
		say("start");
		look();
		for (int i = 0; i < OPERATIONS; i++)
			operation();
		telling = 0;
		hex(n);
		text(" ");
		hex(hash);
		text("\n");
	}
	text("end\n");
}

__asm__(".section .text.entry, \"ax\"\n"
	".globl _start\n"
	"_start:\n"
	"	msr daifset, #15\n"
	"	adrp x0, stack_top\n"
	"	add x0, x0, :lo12:stack_top\n"
	"	mov sp, x0\n"
	"	bl start\n"
	"	movz w0, #8\n"
	"	movk w0, #0x8400, lsl 16\n"
	"	hvc #0\n"
	"1:	wfi\n"
	"	b 1b\n"
	".bss\n"
	".balign 16\n"
	"	.skip 16384\n"
	"stack_top:\n"
	".text\n");
