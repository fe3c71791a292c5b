/*
 * Random translation regimes and accesses on a bare machine: which exception each access ends in, a line a case on the
 * UART. Runs on QEMU's virt machine and on the A64 core alike (main.ts); both must print the same.
 * Built by build.sh. `seed`, `cases` and `granules` are patched in by whoever runs it.
 */
#include <stdint.h>

typedef uint64_t u64;

/* Patched. Granules: bit 0 4 KB, bit 1 16 KB, bit 2 64 KB. */
volatile u64 seed = 1, cases = 16, granules = 5;

#define UART ((volatile uint32_t *)0x09000000)
#define SVC_TWICE 0xd4000001d4000001ull

static uint32_t state;

static uint32_t draw(uint32_t limit)
{
	state ^= state << 13;
	state ^= state >> 17;
	state ^= state << 5;
	return (uint32_t)(((u64)state * limit) >> 32);
}

static int one_in(uint32_t n)
{
	return draw(n) == 0;
}

/* ---- output ---- */

static void put(char c)
{
	*UART = (uint32_t)c;
}

static void print(const char *text)
{
	while (*text)
		put(*text++);
}

static void print_hex(u64 value)
{
	int started = 0;

	for (int at = 60; at >= 0; at -= 4) {
		int digit = (int)(value >> at) & 15;

		if (digit || started || at == 0) {
			put("0123456789abcdef"[digit]);
			started = 1;
		}
	}
}

static void field(const char *name, u64 value)
{
	print(name);
	print_hex(value);
}

/* ---- tables ---- */

#define POOL (16 * 65536)
static uint8_t pool[POOL] __attribute__((aligned(65536)));
static u64 pool_used;

/* What accesses are aimed at: 64 KB, full of SVC, and where they may run over. */
#define TARGET 65536
uint8_t target[TARGET + 4096] __attribute__((aligned(65536)));
/* The stubs of access.S, alone in what EL0 may execute. */
static uint8_t el0_page[65536] __attribute__((aligned(65536)));
extern uint32_t el0_stubs[], el0_stubs_end[];

#define VALID 1ull
#define TABLE 3ull
#define AF    (1ull << 10)
#define KERNEL_PAGE (AF | (3ull << 8) | (1ull << 54))
#define OUT   0x0000fffffffff000ull

struct regime {
	int granule; /* log2 of bytes */
	int t0sz, t1sz, ips, wxn, align, tbi0, tbi1, epd1;
	u64 *root0, *root1;
};

/* The pool is all zero beyond what is used: cases put back what they change. */
static u64 *new_table(const struct regime *r)
{
	u64 *table = (u64 *)&pool[pool_used];

	pool_used += 1ull << r->granule;
	return table;
}

static int shift_of(const struct regime *r, int level)
{
	return r->granule + (3 - level) * (r->granule - 3);
}

static int first_level(const struct regime *r, int tsz)
{
	int level = 0;

	while (level < 3 && shift_of(r, level) >= 64 - tsz)
		level++;
	return level;
}

/* Entries that a case has changed, so that they can be put back. */
static struct { u64 *entry, value; } changed[16];
static int changes;

static void set(u64 *entry, u64 value)
{
	changed[changes].entry = entry;
	changed[changes++].value = *entry;
	*entry = value;
}

static void put_back(u64 pool_before)
{
	while (changes > 0) {
		changes--;
		*changed[changes].entry = changed[changes].value;
	}
	pool_used = pool_before;
}

/* The entry of an address at a level, with tables made on the way; each gets `above` ORed in. */
static u64 *entry_of(const struct regime *r, u64 *root, int tsz, u64 va, int level, u64 above)
{
	u64 *table = root;

	for (int at = first_level(r, tsz);; at++) {
		int shift = shift_of(r, at);
		int width = at == first_level(r, tsz) ? 64 - tsz - shift : r->granule - 3;
		u64 *entry = &table[(va >> shift) & ((1ull << width) - 1)];

		if (at == level)
			return entry;
		if (!(*entry & VALID))
			set(entry, (u64)new_table(r) | TABLE | above);
		table = (u64 *)(*entry & OUT & ~((1ull << r->granule) - 1));
	}
}

static int has_blocks(const struct regime *r, int level)
{
	return level == 2 || (level == 1 && r->granule == 12);
}

extern char image_start[], data_start[], image_end[];

/* Code (read-only, for WXN), data and the UART one to one, and the stubs of EL0 at 2 GB. */
static void map_kernel(const struct regime *r)
{
	u64 block = 1ull << shift_of(r, 2), page = 1ull << r->granule;

	for (u64 at = (u64)image_start; at < (u64)image_end; at += page, changes = 0)
		*entry_of(r, r->root0, r->t0sz, at, 3, 0) = at | KERNEL_PAGE | TABLE | (u64)(at < (u64)data_start) << 7;
	*entry_of(r, r->root0, r->t0sz, 0x09000000, 2, 0) =
		(0x09000000 & ~(block - 1)) | KERNEL_PAGE | VALID | (1ull << 2) | (1ull << 53);
	*entry_of(r, r->root0, r->t0sz, 0x80000000, 3, 0) =
		(u64)el0_page | AF | (3ull << 8) | TABLE | (3ull << 6) | (1ull << 53);
}

#define sysreg(name, value) asm volatile("msr " #name ", %0" ::"r"((u64)(value)) : "memory")
#define get(name) ({ u64 v_; asm volatile("mrs %0, " #name : "=r"(v_)); v_; })

static void enter(const struct regime *r)
{
	static const u64 tg0[] = { [12] = 0, [14] = 2, [16] = 1 }, tg1[] = { [12] = 2, [14] = 1, [16] = 3 };
	u64 tcr = (u64)r->t0sz | (u64)r->epd1 << 23 | (u64)r->t1sz << 16 | tg0[r->granule] << 14 |
		  tg1[r->granule] << 30 | (u64)r->ips << 32 | 1ull << 36 | (u64)r->tbi0 << 37 | (u64)r->tbi1 << 38 |
		  0x3500ull | 0x35000000ull;

	asm volatile("dsb sy" ::: "memory");
	sysreg(mair_el1, 0x0000004404ffull | 0xffull << 56);
	sysreg(tcr_el1, tcr);
	sysreg(ttbr0_el1, r->root0);
	sysreg(ttbr1_el1, r->root1);
	asm volatile("isb\n\ttlbi vmalle1\n\tdsb sy\n\tisb" ::: "memory");
	/* M, A, SA, DZE, UCT, UCI, nTWI, nTWE, WXN */
	sysreg(sctlr_el1, 0x30d00800 | 1 | r->align << 1 | 8 | 1 << 14 | 1 << 15 | 1 << 16 | 1 << 18 | r->wxn << 19 |
				  1 << 26);
	asm volatile("isb");
}

/* ---- accesses ---- */

struct record {
	u64 vector, esr, far, elr, spsr;
} record;

/* access.S: makes one access at an address and comes back whatever happens; 1 when an exception was taken. */
int access_el1(u64 kind, u64 at);
int access_el0(u64 kind, u64 at);
extern char vectors[];

#define KINDS_EL1 18
#define KINDS_EL0 10
#define KIND_EXECUTE 0
#define KIND_STORE   2
#define KIND_ZVA     13
#define KIND_AT      14

static void fill_target(void)
{
	for (unsigned int i = 0; i < TARGET; i += 8)
		*(volatile u64 *)&target[i] = SVC_TWICE;
}

static void draw_regime(struct regime *r)
{
	/* The tables in use are about to be written over. */
	sysreg(sctlr_el1, 0x30d00800);
	asm volatile("isb" ::: "memory");
	do {
		r->granule = 12 + 2 * (int)draw(3);
	} while (!(granules & (1ull << ((r->granule - 12) / 2))));
	r->t0sz = 16 + (int)draw(16);
	r->t1sz = 16 + (int)draw(24);
	r->ips = 2 + (int)draw(3);
	r->wxn = one_in(4);
	r->align = one_in(4);
	r->tbi0 = one_in(3);
	r->tbi1 = one_in(3);
	r->epd1 = one_in(16);
	for (u64 i = 0; i < pool_used; i += 16)
		asm volatile("stp xzr, xzr, [%0]" ::"r"(&pool[i]) : "memory");
	pool_used = 0;
	r->root0 = new_table(r);
	r->root1 = new_table(r);
	map_kernel(r);
}

/* An address bit beyond TCR_EL1.IPS. */
static u64 too_wide(const struct regime *r)
{
	uint32_t bits = 36 + 2 * (uint32_t)r->ips; /* 40, 42, 44 */

	return 1ull << (bits + draw(48 - bits));
}

/* Maps an address somehow, most often well; it lies in the target once it is mapped. Answers its entry. */
static u64 map_case(const struct regime *r, u64 va, int upper)
{
	u64 *root = upper ? r->root1 : r->root0;
	int tsz = upper ? r->t1sz : r->t0sz;
	int first = first_level(r, tsz), level = 3;
	u64 above = 0, leaf, out;

	while (level > first && one_in(4))
		level--;
	if (level < 3 && !has_blocks(r, level))
		level = 3;
	for (int bit = 59; bit <= 62; bit++)
		if (one_in(10))
			above |= 1ull << bit;
	out = (u64)target & ~((1ull << shift_of(r, level)) - 1);
	leaf = out | AF | (u64)draw(4) << 6 | (u64)draw(4) << 8;
	leaf |= one_in(3) ? 1ull << 53 : 0;
	leaf |= one_in(3) ? 1ull << 54 : 0;
	leaf |= one_in(2) ? 1ull << 11 : 0;
	leaf |= one_in(4) ? (u64)(1 + draw(2)) << 2 : 0;
	if (one_in(12))
		leaf &= ~AF;
	if (one_in(16))
		leaf |= too_wide(r);
	leaf |= level == 3 ? TABLE : VALID;
	if (one_in(24) && level == 3)
		leaf ^= 2;
	if (one_in(24))
		leaf &= ~VALID;
	set(entry_of(r, root, tsz, va, level, above), leaf);
	/* A fault on the way. */
	if (level > first && one_in(10)) {
		int at = first + (int)draw((uint32_t)(level - first));
		u64 *entry = entry_of(r, root, tsz, va, at, 0);

		switch (draw(4)) {
		case 0: set(entry, *entry & ~VALID); break;
		case 1: set(entry, *entry | too_wide(r)); break;
		case 2: set(entry, 0x3000000000ull | TABLE); break; /* no memory there */
		case 3: set(entry, *entry ^ (has_blocks(r, at) ? VALID : 2)); break;
		}
	}
	return leaf;
}

static void one_case(const struct regime *r, u64 index)
{
	int upper = one_in(2), el0 = one_in(2), taken;
	int tsz = upper ? r->t1sz : r->t0sz, bits = 64 - tsz;
	u64 kind, va, offset, leaf;

	/* Away from the kernel's own addresses: above 4 GB in the lower range. */
	va = ((u64)draw(0xffffffff) << 32 | draw(0xffffffff)) & ((1ull << bits) - 1);
	if (!upper && bits > 32)
		va |= 1ull << (bits - 1);
	else if (!upper)
		va = (va & 0x0fffffff) | 0xc0000000;
	offset = one_in(3) ? draw(65536) : draw(8192) * 8;
	if (one_in(12))
		offset = 65536 - 1 - draw(15);
	/* The low bits are the target's, as far as the largest block goes. */
	u64 low = (1ull << shift_of(r, has_blocks(r, 1) ? 1 : 2)) - 1;

	if (low >= (1ull << (bits - 1)))
		low = (1ull << (bits - 1)) - 1;
	va = (va & ~low) | (((u64)target + offset) & low);
	if (!upper && va < 0xc0000000)
		va |= 0xc0000000;
	if (upper)
		va |= ~((1ull << bits) - 1);
	leaf = map_case(r, va, upper);
	if (one_in(16))
		va ^= 1ull << (63 - draw(8));
	if (one_in(24) && bits < 55)
		va ^= 1ull << (bits + (int)draw((uint32_t)(55 - bits)));
	kind = draw(el0 ? KINDS_EL0 : KINDS_EL1);
	/* DC ZVA of Device memory is an alignment fault that QEMU does not have. */
	if (!el0 && kind == KIND_ZVA && (leaf & (7 << 2)) == 1 << 2)
		kind = KIND_STORE;

	asm volatile("dsb sy\n\ttlbi vmalle1\n\tdsb sy\n\tisb" ::: "memory");
	record.vector = 0xff;
	taken = el0 ? access_el0(kind, va) : access_el1(kind, va);

	print_hex(index);
	field(el0 ? " e0 k" : " e1 k", kind);
	field(" at ", va);
	if (!el0 && kind >= KIND_AT && !taken) {
		field(" par ", get(par_el1));
	} else if (!taken) {
		print(" done");
	} else {
		field(" vector ", record.vector);
		field(" esr ", record.esr);
		/* Written by aborts and PC alignment alone. */
		u64 class = record.esr >> 26;
		if (class == 0x20 || class == 0x21 || class == 0x24 || class == 0x25 || class == 0x22)
			field(" far ", record.far);
		if (kind == KIND_EXECUTE)
			field(" elr ", record.elr);
		field(" spsr ", record.spsr & 0x3cf);
	}
	put('\n');
}

void main(void)
{
	for (uint32_t *from = el0_stubs; from < el0_stubs_end; from++)
		((volatile uint32_t *)el0_page)[from - el0_stubs] = *from;
	sysreg(vbar_el1, vectors);
	sysreg(cpacr_el1, 3ull << 20);
	state = (uint32_t)seed * 0x9e3779b9u;
	if (state == 0)
		state = 1;
	for (u64 i = 0; i < cases;) {
		struct regime r;

		draw_regime(&r);
		fill_target();
		enter(&r);
		print("regime ");
		print_hex((u64)(1 << (r.granule - 10)));
		field("K t0sz ", (u64)r.t0sz);
		field(" t1sz ", (u64)r.t1sz);
		field(" ips ", (u64)r.ips);
		field(" wxn ", (u64)r.wxn);
		field(" a ", (u64)r.align);
		field(" tbi ", (u64)(r.tbi0 | r.tbi1 << 1));
		field(" epd1 ", (u64)r.epd1);
		put('\n');
		u64 pool_before = pool_used;

		changes = 0;
		for (int n = 0; n < 16 && i < cases; n++, i++) {
			one_case(&r, i);
			put_back(pool_before);
		}
	}
	print("end\n");
}
