"""The processes: `celery -A workers worker`, `celery -A workers beat`, `celery -A workers flower`.

Celery finds the application in `workers.celery`.
"""
