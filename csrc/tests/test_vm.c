#include "check.h"
#include "ctxpool/vm.h"

#include <stdint.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void
test_a_map_is_zeros_and_aligned(void)
{
    size_t page = cxp_vm_page_size();
    for (size_t alignment = 64; alignment <= ((size_t)4 << 20); alignment *= 2) {
        cxp_vm vm;
        CHECK(cxp_vm_map(&vm, page + 1, alignment, 0) == 0);
        CHECK((uintptr_t)vm.base % alignment == 0);
        CHECK(vm.size == 2 * page);
        CHECK(vm.base[0] == 0 && vm.base[vm.size - 1] == 0);
        memset(vm.base, 1, vm.size);
        cxp_vm_unmap(&vm);
        CHECK(vm.base == NULL && vm.size == 0);
    }
}

static void
test_a_fitted_map_takes_no_more_than_its_size(void)
{
    size_t page = cxp_vm_page_size();
    for (size_t alignment = page; alignment <= ((size_t)4 << 20); alignment *= 2) {
        cxp_vm vm;
        CHECK(cxp_vm_map(&vm, 3 * page, alignment, 0) == 0);
        vm.base[3 * page - 1] = 1;
        cxp_vm_fit(&vm);
        CHECK(vm.map == vm.base && vm.map_size == vm.size && vm.size == 3 * page);
        CHECK((uintptr_t)vm.base % alignment == 0);
        CHECK(vm.base[0] == 0 && vm.base[3 * page - 1] == 1);
        cxp_vm_fit(&vm);
        CHECK(vm.map_size == 3 * page);
        cxp_vm_unmap(&vm);
    }
}

static void
test_impossible_maps_are_refused(void)
{
    cxp_vm vm;
    CHECK(cxp_vm_map(&vm, 0, 64, 0) == -1);
    CHECK(cxp_vm_map(&vm, SIZE_MAX, 64, 0) == -1);
    CHECK(cxp_vm_map(&vm, SIZE_MAX / 2, 64, 0) == -1);
}

static void
test_populate_keeps_the_bytes_and_discard_frees_them(void)
{
    cxp_vm vm;
    size_t page = cxp_vm_page_size();
    CHECK(cxp_vm_map(&vm, 64 * page, page, 0) == 0);
    CHECK(cxp_vm_resident(vm.base, vm.size) == 0);
    vm.base[5] = 7;
    CHECK(cxp_vm_populate(vm.base, vm.size) == 0);
    CHECK(cxp_vm_resident(vm.base, vm.size) == 64 * page);
    CHECK(vm.base[5] == 7);
    /* Only whole pages inside the range go. */
    CHECK(cxp_vm_discard(vm.base + 1, 3 * page, 0) == 2 * page);
    CHECK(vm.base[5] == 7);
    CHECK(cxp_vm_discard(vm.base + 1, page, 0) == 0);
    CHECK(cxp_vm_discard(vm.base, vm.size, 0) == 62 * page);
    CHECK(vm.base[5] == 0);
    cxp_vm_unmap(&vm);
}

static void
test_fork_modes(void)
{
    cxp_vm copy, wipe;
    size_t page = cxp_vm_page_size();
    CHECK(cxp_vm_map(&copy, page, page, 0) == 0);
    CHECK(cxp_vm_map(&wipe, page, page, 0) == 0);
    CHECK(cxp_vm_advise_fork(&copy, CXP_FORK_COPY) == 0);
    if (cxp_vm_advise_fork(&wipe, CXP_FORK_WIPE) == 0) {
        copy.base[0] = wipe.base[0] = 9;
        pid_t child = fork();
        if (child == 0)
            _exit(copy.base[0] == 9 && wipe.base[0] == 0 ? 0 : 1);
        int status = -1;
        CHECK(waitpid(child, &status, 0) == child && status == 0);
        CHECK(wipe.base[0] == 9);
    }
    cxp_vm_unmap(&copy);
    cxp_vm_unmap(&wipe);
}

int
main(void)
{
    test_a_map_is_zeros_and_aligned();
    test_a_fitted_map_takes_no_more_than_its_size();
    test_impossible_maps_are_refused();
    test_populate_keeps_the_bytes_and_discard_frees_them();
    test_fork_modes();
    return CHECK_SUMMARY();
}
