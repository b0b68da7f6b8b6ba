/* SPDX-License-Identifier: Apache-2.0 */
/* See device_receiver.h. */
#include "vmm/migration/device_receiver.h"

#include "vmm/migration/device_workers.h"

struct device_receiver {
	struct device_workers *workers;
};

static int device_receiver_bad_position(const struct wire_frame *frame, uint64_t want, struct err *err)
{
	return err_set(err, -EPROTO, "%s at %llu of the stream, not at %llu", wire_type_name(frame->type),
		       (unsigned long long)frame->a, (unsigned long long)want);
}

/* The channel limits the length to the size of buf. */
static int device_receiver_take_data(struct device_worker *worker, const struct wire_frame *frame, uint8_t *buf,
				     struct err *err)
{
	int code = channel_payload(worker->channel, buf, frame->length, err);

	if (code == 0)
		code = vfio_migration_write(worker->device, buf, frame->length, err);
	__atomic_store_n(&worker->position, worker->position + frame->length, __ATOMIC_RELAXED);
	worker->frames++;
	return code;
}

/* The device has loaded all data before it, since the data was written into the device. */
static int device_receiver_take_initial(struct device_worker *worker, struct err *err)
{
	if (worker->asks)
		return err_set(err, -EPROTO, "INITIAL was sent twice");
	worker->asks = true;
	return channel_send(worker->channel, WIRE_ACK, worker->position, 0, NULL, 0, err);
}

static int device_receiver_take_end(struct device_worker *worker, const struct wire_frame *frame, struct err *err)
{
	if (frame->b != worker->frames)
		return err_set(err, -EPROTO, "END counts %llu frames of state, but %llu were received",
			       (unsigned long long)frame->b, (unsigned long long)worker->frames);
	return vfio_migration_loaded(worker->device, err);
}

static int device_receiver_receive_device(struct device_worker *worker, struct err *err)
{
	_cleanup_(free_ptr) uint8_t *buf = malloc(WIRE_MAX_DATA);
	int code = buf ? vfio_migration_load(worker->device, err) : err_sys(err, -ENOMEM, "device state");
	struct wire_frame frame;

	while (code == 0) {
		code = channel_receive(worker->channel, &frame, err);
		if (code < 0)
			break;
		if (frame.a != worker->position)
			code = device_receiver_bad_position(&frame, worker->position, err);
		else if (frame.type == WIRE_END)
			return device_receiver_take_end(worker, &frame, err);
		else
			code = frame.type == WIRE_DATA ? device_receiver_take_data(worker, &frame, buf, err) :
							 device_receiver_take_initial(worker, err);
	}
	return code;
}

int device_receiver_create(const struct device_receiver_options *options, struct device_receiver **ret, struct err *err)
{
	struct device_receiver *receiver = calloc(1, sizeof(*receiver));
	int code;

	if (!receiver)
		return err_sys(err, -ENOMEM, "device channels");
	code = device_workers_create(options->devices, options->channels, options->count, NULL, "recv-dev",
				     device_receiver_receive_device, receiver, &receiver->workers, err);
	if (code < 0) {
		free(receiver);
		return code;
	}
	*ret = receiver;
	return 0;
}

void device_receiver_destroy(struct device_receiver *receiver)
{
	if (!receiver)
		return;
	device_workers_destroy(receiver->workers);
	free(receiver);
}

int device_receiver_fd(const struct device_receiver *receiver)
{
	return crew_fd(receiver->workers->crew);
}

bool device_receiver_done(struct device_receiver *receiver, int cancel_fd, int64_t until)
{
	return crew_wait(receiver->workers->crew, cancel_fd, until);
}

int device_receiver_wait(struct device_receiver *receiver, struct err *err)
{
	return device_workers_wait(receiver->workers, err);
}
