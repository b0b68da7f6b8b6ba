// SPDX-License-Identifier: GPL-2.0
/*
 * softdev's IOMMUs: two instances in software, one of which tracks dirty pages, and the module's beginning and end.
 *
 * The rest of the kernel takes them for hardware: iommufd and type1 allocate domains, map, attach and ask for dirty
 * pages through the usual tables. A page table is an xarray of page number -> page frame and right to write, the dirty
 * bit of an entry is one of its marks. A domain of one instance cannot be attached to a device behind the other one
 * (EINVAL).
 */
#include <linux/iommu.h>
#include <linux/irqdomain.h>
#include <linux/module.h>
#include <linux/msi.h>
#include <linux/platform_device.h>
#include <linux/property.h>
#include <linux/rwsem.h>

#include "softdev.h"

#define DIRTY XA_MARK_0
#define MAX_DEVICES 16

struct softdev_iommu {
	struct iommu_device iommu;
	struct fwnode_handle *fwnode;
	struct irq_domain *msi;
	bool tracking;
};

struct softdev_domain {
	struct iommu_domain domain;
	struct softdev_iommu *iommu;
	struct xarray pages;
	bool tracking;
};

/* Of each device: where it is attached; NULL for all that does not translate. */
struct softdev_master {
	struct softdev_iommu *iommu;
	struct softdev_domain *domain;
};

static struct softdev_iommu iommus[2];	/* [1] tracks */

/*
 * DMA holds it for reading, from the look at the page table to the last byte. Taking it for writing, if only for
 * a moment, waits for the DMA in flight: what the flush of an IOTLB does in hardware.
 */
static DECLARE_RWSEM(dma_lock);

static void wait_for_dma(void)
{
	down_write(&dma_lock);
	up_write(&dma_lock);
}

static struct softdev_domain *to_domain(struct iommu_domain *domain)
{
	return container_of(domain, struct softdev_domain, domain);
}

/* ---- Translation ---- */

int softdev_iommu_access(struct device *dev, u64 iova, void *buf, size_t len, bool write, bool mark)
{
	struct softdev_master *master = dev_iommu_priv_get(dev);
	unsigned long index = iova >> PAGE_SHIFT, pfn;
	int ret = -EFAULT;
	void *entry, *at;

	down_read(&dma_lock);
	entry = master->domain ? xa_load(&master->domain->pages, index) : NULL;
	if (!entry || (write && !(xa_to_value(entry) & 1)))
		goto out;
	pfn = xa_to_value(entry) >> 1;
	if (!pfn_valid(pfn))
		goto out;
	at = phys_to_virt(PFN_PHYS(pfn)) + offset_in_page(iova);
	/*
	 * Before the data: who clears the bit waits for the DMA in flight afterwards, so that a page whose bit has been
	 * read holds what the bit stood for.
	 */
	if (write && mark && READ_ONCE(master->domain->tracking))
		xa_set_mark(&master->domain->pages, index, DIRTY);
	if (write)
		memcpy(at, buf, len);
	else
		memcpy(buf, at, len);
	ret = 0;
out:
	up_read(&dma_lock);
	return ret;
}

static int map_pages(struct iommu_domain *domain, unsigned long iova, phys_addr_t paddr, size_t pgsize, size_t pgcount,
		     int prot, gfp_t gfp, size_t *mapped)
{
	struct softdev_domain *d = to_domain(domain);
	unsigned long index = iova >> PAGE_SHIFT;
	size_t i;

	for (i = 0; i < pgcount; i++) {
		unsigned long value = (PHYS_PFN(paddr) + i) << 1 | !!(prot & IOMMU_WRITE);
		int ret = xa_insert(&d->pages, index + i, xa_mk_value(value), gfp);

		if (ret)
			return ret;
		*mapped += PAGE_SIZE;
	}
	return 0;
}

static size_t unmap_pages(struct iommu_domain *domain, unsigned long iova, size_t pgsize, size_t pgcount,
			  struct iommu_iotlb_gather *gather)
{
	struct softdev_domain *d = to_domain(domain);
	size_t i;

	for (i = 0; i < pgcount; i++)
		if (!xa_erase(&d->pages, (iova >> PAGE_SHIFT) + i))
			break;
	if (i)
		iommu_iotlb_gather_add_range(gather, iova, i << PAGE_SHIFT);
	return i << PAGE_SHIFT;
}

static void iotlb_sync(struct iommu_domain *domain, struct iommu_iotlb_gather *gather)
{
	wait_for_dma();
}

static void flush_iotlb_all(struct iommu_domain *domain)
{
	wait_for_dma();
}

static phys_addr_t iova_to_phys(struct iommu_domain *domain, dma_addr_t iova)
{
	void *entry = xa_load(&to_domain(domain)->pages, iova >> PAGE_SHIFT);

	return entry ? PFN_PHYS(xa_to_value(entry) >> 1) + offset_in_page(iova) : 0;
}

/* ---- Dirty tracking ---- */

static int set_dirty_tracking(struct iommu_domain *domain, bool enabled)
{
	WRITE_ONCE(to_domain(domain)->tracking, enabled);
	/* DMA that looked before the change has ended when the caller hears of it. */
	wait_for_dma();
	return 0;
}

/*
 * No lock is held while a bit is recorded, for that may sleep. The bit is cleared first: DMA that sets it again in
 * between is reported twice, and never not at all. The caller drains (iotlb_sync).
 */
static int read_and_clear_dirty(struct iommu_domain *domain, unsigned long iova, size_t size, unsigned long flags,
				struct iommu_dirty_bitmap *dirty)
{
	struct softdev_domain *d = to_domain(domain);
	unsigned long index = iova >> PAGE_SHIFT, last = (iova + size - 1) >> PAGE_SHIFT;
	void *entry;

	if (!d->tracking && dirty->bitmap)
		return -EINVAL;
	for (entry = xa_find(&d->pages, &index, last, DIRTY); entry;
	     entry = xa_find_after(&d->pages, &index, last, DIRTY)) {
		if (!(flags & IOMMU_DIRTY_NO_CLEAR))
			xa_clear_mark(&d->pages, index, DIRTY);
		iommu_dirty_bitmap_record(dirty, index << PAGE_SHIFT, PAGE_SIZE);
	}
	return 0;
}

static const struct iommu_dirty_ops dirty_ops = {
	.set_dirty_tracking = set_dirty_tracking,
	.read_and_clear_dirty = read_and_clear_dirty,
};

/* ---- Domains ---- */

static int attach(struct softdev_master *master, struct softdev_domain *domain)
{
	down_write(&dma_lock);
	master->domain = domain;
	up_write(&dma_lock);
	return 0;
}

static int attach_paging(struct iommu_domain *domain, struct device *dev, struct iommu_domain *old)
{
	struct softdev_master *master = dev_iommu_priv_get(dev);

	/* The expected answer, by which user space finds out that it needs another page table. */
	if (to_domain(domain)->iommu != master->iommu)
		return -EINVAL;
	return attach(master, to_domain(domain));
}

/* Identity and blocked are one: memory that no user mapped is out of the engine's reach. */
static int attach_none(struct iommu_domain *domain, struct device *dev, struct iommu_domain *old)
{
	return attach(dev_iommu_priv_get(dev), NULL);
}

static void free_domain(struct iommu_domain *domain)
{
	struct softdev_domain *d = to_domain(domain);

	/* type1 may free it with everything still mapped. */
	xa_destroy(&d->pages);
	kfree(d);
}

/* The engine snoops, as processors do. */
static bool enforce_cache_coherency(struct iommu_domain *domain)
{
	return true;
}

static const struct iommu_domain_ops paging_ops = {
	.attach_dev = attach_paging,
	.map_pages = map_pages,
	.unmap_pages = unmap_pages,
	.flush_iotlb_all = flush_iotlb_all,
	.iotlb_sync = iotlb_sync,
	.iova_to_phys = iova_to_phys,
	.enforce_cache_coherency = enforce_cache_coherency,
	.free = free_domain,
};

static const struct iommu_domain_ops none_ops = {.attach_dev = attach_none};
static struct iommu_domain identity_domain = {.type = IOMMU_DOMAIN_IDENTITY, .ops = &none_ops};
static struct iommu_domain blocked_domain = {.type = IOMMU_DOMAIN_BLOCKED, .ops = &none_ops};

static struct iommu_domain *domain_alloc_paging_flags(struct device *dev, u32 flags, const struct iommu_user_data *data)
{
	struct softdev_master *master = dev_iommu_priv_get(dev);
	bool dirty = flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
	struct softdev_domain *d;

	if (data || flags & ~IOMMU_HWPT_ALLOC_DIRTY_TRACKING || (dirty && !master->iommu->tracking))
		return ERR_PTR(-EOPNOTSUPP);
	d = kzalloc(sizeof(*d), GFP_KERNEL_ACCOUNT);
	if (!d)
		return ERR_PTR(-ENOMEM);
	xa_init(&d->pages);
	d->iommu = master->iommu;
	/* iommufd fills in none of this. */
	d->domain.type = IOMMU_DOMAIN_UNMANAGED;
	d->domain.ops = &paging_ops;
	d->domain.dirty_ops = dirty ? &dirty_ops : NULL;
	d->domain.pgsize_bitmap = PAGE_SIZE;
	d->domain.geometry.aperture_end = BIT_ULL(48) - 1;
	d->domain.geometry.force_aperture = true;
	return &d->domain;
}

/* ---- Devices behind the IOMMUs ---- */

static bool is_capable(struct device *dev, enum iommu_cap cap)
{
	struct softdev_master *master = dev_iommu_priv_get(dev);

	switch (cap) {
	case IOMMU_CAP_CACHE_COHERENCY:
	case IOMMU_CAP_ENFORCE_CACHE_COHERENCY:
		return true;
	case IOMMU_CAP_DIRTY_TRACKING:
		return master->iommu->tracking;
	default:
		return false;
	}
}

static struct iommu_device *probe_device(struct device *dev)
{
	struct iommu_fwspec *fwspec = dev_iommu_fwspec_get(dev);
	struct softdev_master *master = kzalloc(sizeof(*master), GFP_KERNEL);

	if (!master)
		return ERR_PTR(-ENOMEM);
	master->iommu = &iommus[fwspec->iommu_fwnode == iommus[1].fwnode];
	dev_iommu_priv_set(dev, master);
	return &master->iommu->iommu;
}

static void release_device(struct device *dev)
{
	kfree(dev_iommu_priv_get(dev));
	dev_iommu_priv_set(dev, NULL);
}

static int def_domain_type(struct device *dev)
{
	return IOMMU_DOMAIN_IDENTITY;
}

/* Where x86 takes its interrupt messages: no memory can be mapped there. */
static void get_resv_regions(struct device *dev, struct list_head *list)
{
	struct iommu_resv_region *region = iommu_alloc_resv_region(0xfee00000, SZ_1M, 0, IOMMU_RESV_MSI, GFP_KERNEL);

	if (region)
		list_add_tail(&region->list, list);
}

static const struct iommu_ops iommu_ops = {
	.capable = is_capable,
	.domain_alloc_paging_flags = domain_alloc_paging_flags,
	.probe_device = probe_device,
	.release_device = release_device,
	.device_group = generic_device_group,
	.get_resv_regions = get_resv_regions,
	.def_domain_type = def_domain_type,
	.identity_domain = &identity_domain,
	.blocked_domain = &blocked_domain,
	.release_domain = &blocked_domain,
	.owner = THIS_MODULE,
};

static const struct irq_domain_ops msi_ops = {};

static int add_iommu(struct softdev_iommu *iommu, bool tracking)
{
	const char *name = tracking ? "softdev-tracking" : "softdev-plain";
	struct irq_domain_info info = {.domain_flags = IRQ_DOMAIN_FLAG_ISOLATED_MSI, .ops = &msi_ops};
	int ret;

	iommu->tracking = tracking;
	iommu->fwnode = fwnode_create_software_node(NULL, NULL);
	if (IS_ERR(iommu->fwnode))
		return PTR_ERR(iommu->fwnode);
	/* Interrupts are eventfds: no device can send a message that is not its own, and VFIO wants that promise. */
	info.fwnode = iommu->fwnode;
	iommu->msi = irq_domain_instantiate(&info);
	if (IS_ERR(iommu->msi)) {
		ret = PTR_ERR(iommu->msi);
		goto no_msi;
	}
	ret = iommu_device_sysfs_add(&iommu->iommu, NULL, NULL, "%s", name);
	if (ret)
		goto no_sysfs;
	iommu->iommu.fwnode = iommu->fwnode;
	ret = iommu_device_register(&iommu->iommu, &iommu_ops, NULL);
	if (!ret)
		return 0;
	iommu_device_sysfs_remove(&iommu->iommu);
no_sysfs:
	irq_domain_remove(iommu->msi);
no_msi:
	fwnode_remove_software_node(iommu->fwnode);
	return ret;
}

static void remove_iommu(struct softdev_iommu *iommu)
{
	iommu_device_unregister(&iommu->iommu);
	iommu_device_sysfs_remove(&iommu->iommu);
	irq_domain_remove(iommu->msi);
	fwnode_remove_software_node(iommu->fwnode);
}

/* ---- Which devices there are ---- */

static struct platform_device *devices[MAX_DEVICES];
static unsigned int device_count;
static char spec[MAX_DEVICES + 2] = "tt";
static bool ready;

static int add_device(bool tracking)
{
	struct softdev_iommu *iommu = &iommus[tracking];
	struct platform_device *pdev = platform_device_alloc(softdev_driver.driver.name, device_count);
	int ret;

	if (!pdev)
		return -ENOMEM;
	ret = iommu_fwspec_init(&pdev->dev, iommu->fwnode);
	if (!ret) {
		dev_set_msi_domain(&pdev->dev, iommu->msi);
		ret = platform_device_add(pdev);
	}
	if (ret) {
		platform_device_put(pdev);
		return ret;
	}
	devices[device_count++] = pdev;
	return 0;
}

static void remove_devices(void)
{
	while (device_count)
		platform_device_unregister(devices[--device_count]);
}

static int add_devices(void)
{
	const char *c;
	int ret = 0;

	for (c = spec; *c && !ret; c++)
		ret = add_device(*c == 't');
	if (ret)
		remove_devices();
	return ret;
}

/*
 * One letter for each device: t behind the tracking IOMMU, p behind the plain one. Each device holds the module, so
 * that it is unloaded by writing an empty line first.
 */
static int set_devices(const char *value, const struct kernel_param *kp)
{
	size_t len = strcspn(value, "\n");

	if (len > MAX_DEVICES || strspn(value, "tp") < len)
		return -EINVAL;
	if (ready)
		remove_devices();
	strscpy(spec, value, len + 1);
	return ready ? add_devices() : 0;
}

static const struct kernel_param_ops devices_ops = {.set = set_devices, .get = param_get_string};
static struct kparam_string devices_string = {.maxlen = sizeof(spec), .string = spec};
module_param_cb(devices, &devices_ops, &devices_string, 0644);
MODULE_PARM_DESC(devices, "for each device t (behind the IOMMU that tracks dirty pages) or p (behind the plain one)");

static int __init softdev_init(void)
{
	int ret = add_iommu(&iommus[0], false);

	if (ret)
		return ret;
	ret = add_iommu(&iommus[1], true);
	if (ret)
		goto no_second;
	ret = platform_driver_register(&softdev_driver);
	if (ret)
		goto no_driver;
	ret = add_devices();
	if (ret)
		goto no_devices;
	ready = true;
	return 0;
no_devices:
	platform_driver_unregister(&softdev_driver);
no_driver:
	remove_iommu(&iommus[1]);
no_second:
	remove_iommu(&iommus[0]);
	return ret;
}

static void __exit softdev_exit(void)
{
	platform_driver_unregister(&softdev_driver);
	remove_iommu(&iommus[1]);
	remove_iommu(&iommus[0]);
}

module_init(softdev_init);
module_exit(softdev_exit);
MODULE_DESCRIPTION("VFIO test device behind a software IOMMU with dirty tracking");
MODULE_LICENSE("GPL");
MODULE_IMPORT_NS("IOMMUFD");
