/* Console on port 0xe9, exit on port 0xf4. */
#include "kernel.h"

static void outb(uint16_t port, uint8_t v) { __asm__ volatile("outb %0, %1" : : "a"(v), "Nd"(port)); }
static void outl(uint16_t port, uint32_t v) { __asm__ volatile("outl %0, %1" : : "a"(v), "Nd"(port)); }

void print_bytes(const char *text, uint64_t length)
{
	for (uint64_t i = 0; i < length; i++)
		outb(0xe9, (uint8_t)text[i]);
}

void print(const char *text)
{
	while (*text)
		outb(0xe9, (uint8_t)*text++);
}

void print_hex(uint64_t value)
{
	int shift = 60;
	print("0x");
	while (shift > 0 && !(value >> shift & 15))
		shift -= 4;
	for (; shift >= 0; shift -= 4)
		outb(0xe9, (uint8_t)"0123456789abcdef"[value >> shift & 15]);
}

void leave(uint32_t code)
{
	outl(0xf4, code);
	for (;;)
		__asm__ volatile("cli; hlt");
}

void panic(const char *why, uint64_t value)
{
	print("kernel: ");
	print(why);
	print(" ");
	print_hex(value);
	print("\n");
	leave(0x80);
}
