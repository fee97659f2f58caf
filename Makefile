# nohost: every build and every check. README.md says which of these a user needs. Sources are found
# by folder: a new file needs no line here. Five object trees, one per way of building:
# build/target (kernel), build/boot (EFI program), build/host (tools), build/test (sanitized),
# build/fuzz.

MODEL   ?= build/model/SmolLM2-135M-Instruct.Q4_1.gguf
CONF    ?= tools/nohost.conf
SECONDS ?= 30
JOBS    ?= $(shell nproc)

CC      = gcc
CLANG   = clang -Wno-unknown-warning-option
FETCH   = tools/fetch
TREES   = build/target build/boot build/host build/test build/fuzz
SAY     = @echo "  $@"; # make SAY= shows the commands
export MODEL CONF

.DELETE_ON_ERROR:
.PRECIOUS: build/fuzz/tests/%.o
.SUFFIXES:
.PHONY: FORCE all run stop image model test unit fuzz fuzz-build bench sweep tidy \
	lint clean nohost-tools
all: build/nohost.img

# ---- what a user calls; sub-makes build in parallel and leave the console to QEMU ----

SUB = @$(MAKE) -s --no-print-directory -j$(JOBS)
run: build/deps/host.ok
	$(SUB) build/nohost.img build/deps/qemu.ok $(if $(filter sim,$(or $(GPU),sim)),build/host/radeon)
	@tools/run
stop:
	@tools/run stop
image: build/deps/host.ok
	$(SUB) build/nohost.img
model: build/deps/model.ok
test: build/deps/host.ok
	@tools/test
bench: build/deps/host.ok
	$(SUB) build/host/nohost build/host/radeon build/nohost.img \
		$(addprefix build/deps/,qemu.ok llama.ok venv.ok)
	@build/venv/bin/python tools/bench
sweep: build/deps/host.ok build/deps/firmware.ok
	$(SUB) build/host/day
	@SWEEP_STEP=$(or $(STEP),1) build/host/day --filter any_access --verbose 2>&1 | \
		grep -aE 'test: [0-9]+ accesses|FAILED|[0-9]+ passed'
tidy:
	@python3 tools/tidy
clean:
	rm -rf $(TREES) build/gen build/image build/nohost.*

# ---- dependencies: pinned in tools/deps.lock, never committed ----

build/deps/%.ok: tools/deps.lock
	@$(FETCH) $*
	@touch $@

DEPS  = build/deps
$(DEPS)/venv.ok: | $(DEPS)/model.ok # both make build/venv
LWIP  = $(DEPS)/lwip/src
EFI   = $(DEPS)/gnu-efi/usr
lwip_sources = $(addprefix core/, altcp.c altcp_alloc.c altcp_tcp.c def.c dns.c inet_chksum.c \
	init.c ip.c mem.c memp.c netif.c pbuf.c raw.c stats.c sys.c tcp.c tcp_in.c tcp_out.c \
	timeouts.c udp.c) \
	$(addprefix core/ipv4/, acd.c autoip.c dhcp.c etharp.c icmp.c igmp.c ip4.c ip4_addr.c \
	ip4_frag.c) \
	$(addprefix core/ipv6/, dhcp6.c ethip6.c icmp6.c inet6.c ip6.c ip6_addr.c ip6_frag.c \
	mld6.c nd6.c) \
	$(addprefix apps/mdns/, mdns.c mdns_out.c mdns_domain.c) apps/sntp/sntp.c netif/ethernet.c
third_party = $(lwip_sources:%.c=lwip/%.o)

$(DEPS)/lwip/src/%.c: | $(DEPS)/lwip.ok ;

# ---- rooms and flags ----

portable = $(wildcard amdgpu/*.c net/*.c ml/*.c ml/compile/*.c)
kernel   = $(wildcard kernel/*.c kernel/*.S pci/*.c)
# What the host links from the kernel's rooms: an archive, so a test pulls in only what it calls.
hosted   = $(filter-out kernel/rt.c kernel/main.c, $(filter %.c, $(kernel))) $(portable) $(sim)
oracle   = $(wildcard tests/oracle/*.c)
sim      = $(filter-out sim/main.c, $(wildcard sim/*.c)) # the simulated Radeon, host only
host_programs = $(wildcard tests/host/*.c) $(oracle) tests/pci_fake.c
tests    = $(filter-out tests/fuzz_%, $(wildcard tests/*.c)) $(oracle) \
	tests/host/platform.c
fuzzers  = $(wildcard tests/fuzz_*.c)
helpers  = $(filter-out tests/fuzz_% tests/test.c %_test.c, $(tests)) # a fuzzer may use them too

WARN     = -Wall -Wextra -Wshadow -Wconversion -Wmissing-prototypes -Werror
INCLUDE  = -I. -Ibuild/gen -iquote net/port -isystem $(LWIP)/include
COMMON   = -std=c2x -ffreestanding -fbuiltin -O2 -g -ffunction-sections -fdata-sections -MMD -MP
OURS     = $(COMMON) $(WARN) $(INCLUDE)
THEIRS   = $(COMMON) -w $(INCLUDE) -Inet/port
TARGET   = -fno-pic -fno-pie -mno-red-zone -mcmodel=kernel -fno-asynchronous-unwind-tables \
	-fstack-protector-strong -mstack-protector-guard=global
SANITIZE = -fsanitize=address,undefined -fno-sanitize=nonnull-attribute \
	-fno-sanitize-recover=all -fno-omit-frame-pointer
HOST     = -march=x86-64-v3 -pthread -Wno-format-truncation
FUZZ     = $(HOST) $(SANITIZE) -fsanitize=fuzzer-no-link
BOOT     = -fpic -fshort-wchar -mno-red-zone -fno-stack-protector -maccumulate-outgoing-args \
	-DGNU_EFI_USE_MS_ABI -isystem $(EFI)/include/efi -isystem $(EFI)/include/efi/x86_64

objects  = $(patsubst %,$(1)/%.o,$(basename $(2)))
build/target/kernel/%.o build/target/pci/%.o: ROOM = -mgeneral-regs-only
build/target/kernel/rt.o: ROOM = -mgeneral-regs-only -fno-builtin
build/target/ml/%.o: ROOM = -march=x86-64-v3
build/host/sim/%.o build/test/sim/%.o: ROOM = -O3 -fno-math-errno -ffp-contract=off
build/fuzz/sim/%.o: ROOM = -Wno-pass-failed -ffp-contract=off

# ---- generated: the build's name, the page, the classes of characters, registers ----

READY = $(addprefix build/gen/, version.h page.h unicode.h regs.h) $(addprefix $(DEPS)/, \
	gnu-efi.ok lwip.ok)
$(shell mkdir -p build/gen build/image)

build/gen/version.h: FORCE
	@version=0.1-$$(git --no-optional-locks describe --always --dirty 2>/dev/null || echo source); \
		echo "#define NOHOST_VERSION \"$$version\"" >$@.new
	@cmp -s $@.new $@ && rm $@.new || mv $@.new $@
build/gen/page.h: net/page/index.html
	@echo 'static const unsigned char page_gz[] = {' >$@
	@gzip -9nc $< | od -An -v -tu1 | sed 's/  */,/g; s/^,//; s/$$/,/' >>$@
	@echo '};' >>$@
build/gen/regs.h: tools/genregs amdgpu/regs.txt
	@python3 $^ >$@
build/gen/unicode.h: tools/gen_unicode.py
	@python3 $< >$@
FORCE:

# ---- the five trees: folder, compiler, flags of our files, of lwIP's ----

define tree
build/$(1)/%.o: %.c Makefile | $(READY)
	@mkdir -p $$(@D)
	$$(SAY)$(2) $(OURS) $(3) $$(ROOM) -c $$< -o $$@
build/$(1)/lwip/%.o: $(LWIP)/%.c Makefile
	@mkdir -p $$(@D)
	$$(SAY)$(2) $(THEIRS) $(4) -c $$< -o $$@
endef
$(eval $(call tree,target,$(CC),$(TARGET),$(TARGET)))
$(eval $(call tree,boot,$(CC),$(BOOT)))
$(eval $(call tree,host,$(CC),$(HOST),$(HOST)))
$(eval $(call tree,test,$(CC),$(HOST) $(SANITIZE),$(HOST) -fsanitize=address))
$(eval $(call tree,fuzz,$(CLANG),$(FUZZ),$(HOST) -fsanitize=address))
build/target/%.o: %.S Makefile
	@mkdir -p $(@D)
	$(SAY)$(CC) $(OURS) $(TARGET) -c $< -o $@

build/%/rooms.a: ; @rm -f $@; ar crs $@ $^
build/host/rooms.a: $(call objects,build/host,$(hosted)) $(third_party:%=build/host/%)
build/test/rooms.a: $(call objects,build/test,$(hosted)) $(third_party:%=build/test/%)
build/fuzz/rooms.a: $(call objects,build/fuzz,$(helpers) $(hosted)) $(third_party:%=build/fuzz/%)

# ---- host programs ----

nohost-tools: build/host/nohost
build/host/nohost: $(call objects,build/host,$(host_programs)) build/host/rooms.a | \
		$(DEPS)/firmware.ok
	$(SAY)$(CC) $(HOST) -Wl,--gc-sections $^ -lm -o $@
build/host/radeon: build/host/sim/main.o build/host/tests/host/platform.o build/host/rooms.a
	$(SAY)$(CC) $(HOST) -Wl,--gc-sections $^ -lm -o $@
# What tests/witness/mutants.py links with one broken file; and how it compiles that.
build/host/day: $(addprefix build/host/tests/, host/rig.o amdgpu_rig_test.o \
		amdgpu_scenario_test.o amdgpu_fault_test.o pci_fake.o test.o host/platform.o) \
		build/host/rooms.a
	$(SAY)$(CC) $(HOST) $^ -lm -o $@
host-flags: ; @echo $(CC) $(filter-out -g -MMD -MP,$(OURS)) $(HOST) -w
build/test/runner: $(call objects,build/test,$(tests) tests/host/rig.c) build/test/rooms.a
	$(SAY)$(CC) $(HOST) $(SANITIZE) $^ -lm -o $@
build/fuzz/fuzz_%: build/fuzz/tests/fuzz_%.o build/fuzz/rooms.a
	$(SAY)$(CLANG) $(HOST) $(SANITIZE) -fsanitize=fuzzer $^ -lm -o $@

unit: build/test/runner
	build/test/runner
fuzz-build: $(fuzzers:tests/%.c=build/fuzz/%)
fuzz: fuzz-build
	@tools/test fuzz $(SECONDS)
lint: # the second compiler's opinion of every file
	@$(CLANG) $(filter-out -MMD -MP,$(OURS)) -march=x86-64-v3 -fsyntax-only \
		$(hosted) $(tests) $(fuzzers) $(host_programs)

# ---- loader, kernel, image ----

# crt0 relocates the program and calls efi_main by the System V convention: no EFIAPI there.
# Nothing else of gnu-efi's library is linked.
build/boot/loader.so: $(call objects,build/boot,$(wildcard boot/*.c) $(addprefix kernel/, \
		paging.c rt.c text.c))
	$(SAY)ld -nostdlib -znocombreloc -shared -Bsymbolic --no-undefined --gc-sections \
		-T $(EFI)/lib/elf_x86_64_efi.lds --defsym=_entry=efi_main \
		$(EFI)/lib/crt0-efi-x86_64.o $^ $(EFI)/lib/libgnuefi.a -o $@
build/image/BOOTX64.EFI: build/boot/loader.so
	$(SAY)objcopy -j .text -j .sdata -j .data -j .rodata -j .dynamic -j .dynsym -j '.rel*' -j .reloc \
		--target=efi-app-x86_64 --subsystem=10 $< $@
build/nohost.elf: linker.ld $(call objects,build/target,$(kernel) $(portable)) \
		$(third_party:%=build/target/%)
	$(SAY)$(CC) -static -nostdlib -no-pie -Wl,--gc-sections,--build-id=none,-z,noexecstack \
		-Wl,-z,max-page-size=4096,-Map=build/nohost.map -T linker.ld $(filter %.o,$^) -lgcc -o $@
build/image/nohost.elf: build/nohost.elf
	$(SAY)strip --strip-all $< -o $@
build/nohost.img: build/image/BOOTX64.EFI build/image/nohost.elf $(DEPS)/firmware.ok FORCE \
		$(if $(filter build/model/%,$(MODEL)),$(DEPS)/model.ok)
	@FIRMWARE="$$(echo build/firmware/*.bin build/firmware/LICENCE.txt)" tools/mkimage $@ \
		$(CONF) build/image/BOOTX64.EFI build/image/nohost.elf $(MODEL)

-include $(shell find $(TREES) -name '*.d' 2>/dev/null)
