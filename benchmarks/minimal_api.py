"""The same routes in ten lines each, as in a first draft. `nox -s bench -- api` compares the API with them."""

import os
from collections.abc import Iterator
from datetime import datetime
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException
from pydantic import BaseModel
from sqlalchemy import create_engine, func, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

engine = create_engine(os.environ["DATABASE_URL"])
app = FastAPI()


class Base(DeclarativeBase):
    pass


class Company(Base):
    __tablename__ = "companies"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())


class CompanyCreate(BaseModel):
    name: str


class CompanyRead(CompanyCreate):
    id: int
    is_active: bool
    created_at: datetime
    updated_at: datetime


def get_db() -> Iterator[Session]:
    with Session(engine) as db:
        yield db


Database = Annotated[Session, Depends(get_db)]


@app.get("/api/v1/companies/{company_id}", response_model=CompanyRead)
def read_company(company_id: int, db: Database) -> Company:
    if (company := db.get(Company, company_id)) is None:
        raise HTTPException(404)
    return company


@app.get("/api/v1/companies", response_model=list[CompanyRead])
def list_companies(db: Database, limit: int = 50) -> list[Company]:
    return list(db.scalars(select(Company).order_by(Company.id).limit(limit)))


@app.post("/api/v1/companies", status_code=201, response_model=CompanyRead)
def create_company(body: CompanyCreate, db: Database) -> Company:
    company = Company(**body.model_dump())
    db.add(company)
    db.commit()
    return company
